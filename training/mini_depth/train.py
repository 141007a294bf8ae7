"""The training: the first blocks of mini go on learning, now from scenes that need several steps.

Next-token prediction, nothing else.
"""

from __future__ import annotations

import random
import time
from dataclasses import asdict
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from lvlm_lens.data import Sample
from lvlm_lens.data.mini.heldout import SEEDS
from lvlm_lens.models.mini import mini_path
from training.mini.assemble import save_model
from training.mini.batches import PLAIN_ATTENTION, Encoder, padded, some_system, weighted_loss
from training.mini.config import Weights
from training.mini.corpus import draw, in_words, makers
from training.mini.journal import Journal
from training.mini.packing import Pack, collate, packs
from training.mini.tower import pixels_of
from training.mini.vision import Gallery, logits_of

from .chats import Row, draw_row, head
from .config import DepthStage
from .items import depth_set
from .world import LABELS

SAVE_EVERY = 300.0
"""Seconds between two checkpoints."""
PROGRESS_EVERY = 7
"""Every so-many-th validation item is looked at while training (odd, so that all cells of a quad come up)."""


def new_model(stage: DepthStage) -> LlavaForConditionalGeneration:
    """``mini`` with its first blocks only.

    The embeddings of the labels, which ``mini`` never trained, are brought to about the norm of those that it did.
    """
    model = LlavaForConditionalGeneration.from_pretrained(mini_path())
    decoder = model.model.language_model
    decoder.layers = decoder.layers[: stage.blocks]
    model.config.text_config.num_hidden_layers = decoder.config.num_hidden_layers = stage.blocks
    tokenizer = AutoTokenizer.from_pretrained(mini_path())
    ids = [tokenizer(f" {label}", add_special_tokens=False).input_ids[0] for label in LABELS]
    with torch.no_grad():
        model.get_input_embeddings().weight[ids] *= 3.0
    return model


class DepthTraining:
    """One training; the tower stays frozen."""

    def __init__(self, out: Path, minutes: float, stage: DepthStage | None = None) -> None:
        self.out = out
        self.seconds = 60 * minutes
        self.stage = stage or DepthStage()
        out.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(out / "training_log.jsonl")
        self.journal.write(stage="start", recipe=asdict(self.stage), minutes=minutes, torch=torch.__version__)
        torch.manual_seed(self.stage.seed)
        self.tokenizer = AutoTokenizer.from_pretrained(mini_path())
        self.model = new_model(self.stage)
        self.encoder = Encoder(self.tokenizer, Weights(decision=4.0))
        self.chance = random.Random(self.stage.seed)
        self.gallery = Gallery.random(
            self.model.model.vision_tower,
            self.stage.pictures_per_thing,
            self.stage.cards_per_thing,
            SEEDS["training"],
            random.Random(self.stage.seed),
        )
        self.replayed = packs(self.stage.replay, self.encoder, self.gallery.of, self.stage.seed)
        self.texts = makers(0.5)
        self.items = [sample for sample in depth_set("validation", self.stage.levels) if sample.meta["part"] == "joint"]

    def run(self) -> None:
        """Train until the time is over, and save."""
        self.model.requires_grad_(True)
        self.model.model.vision_tower.requires_grad_(False)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, self.stage.rate, betas=(0.9, 0.98), weight_decay=self.stage.decay)
        started = saved = time.time()
        self.model.train()
        step, share = 0, 0.0
        while share < 1.0:
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = self.stage.rate_at(step, share)
            loss = self._scenes(share)
            total = loss
            if step % self.stage.replay_every == 0:
                total = loss + self.stage.replay_weight * self._replay()
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            share = (time.time() - started) / self.seconds
            if step % self.stage.log_every == 0 or share >= 1.0:
                told = self._progress(pictures=False)
                shown = self._progress(pictures=True) if self.stage.phase(share).shown else None
                seconds = time.time() - started
                self.journal.write(
                    step=step, seconds=seconds, loss=loss.item(), auroc_told=told, auroc_shown=shown,
                    cpu=time.process_time(),
                )  # fmt: skip
            if time.time() - saved > SAVE_EVERY:
                save_model(self.model, self.tokenizer, self.out / "checkpoint")
                saved = time.time()
        self.model.eval()
        save_model(self.model, self.tokenizer, self.out / "checkpoint")

    def _loss(self, some: list[Pack], shared: list[int] | int, pictured: bool) -> torch.Tensor:
        packed = collate(some, self.tokenizer.pad_token_id, shared)
        seen = torch.full((len(some),), pictured)
        states = self.gallery.states[[pack.picture for pack in some]].float()
        with PLAIN_ATTENTION(), torch.autocast("cpu", torch.bfloat16):
            logits = logits_of(self.model, packed.ids, states, seen, packed.positions, packed.mask)
        return weighted_loss(logits, packed.ids, packed.weights)

    def _scenes(self, share: float) -> torch.Tensor:
        phase = self.stage.phase(share)
        losses, count = [], phase.told + phase.shown
        for rows, gallery in ((phase.told, None), (phase.shown, self.gallery.of)):
            if rows:
                some: list[Row] = [draw_row(self.chance, self.encoder, phase.levels, gallery) for _ in range(rows)]
                loss = self._loss([row.pack for row in some], [row.shared for row in some], gallery is not None)
                losses.append(loss * rows / count)
        return torch.stack(losses).sum()

    def _replay(self) -> torch.Tensor:
        stage = self.stage.replay
        shown = self._loss([next(self.replayed) for _ in range(stage.pictures)], 66, True)
        examples = [in_words(self.chance, draw(self.chance, stage.replay_mix, self.texts)) for _ in range(stage.replay)]
        rows = [self.encoder.encode(example, some_system(self.chance), pictures=0) for example in examples]
        ids, weights = padded(rows, self.tokenizer.pad_token_id)
        with PLAIN_ATTENTION(), torch.autocast("cpu", torch.bfloat16):
            logits = self.model(input_ids=ids, use_cache=False).logits
        return shown + stage.replay_weight * weighted_loss(logits, ids, weights)

    @torch.no_grad()
    def _progress(self, pictures: bool) -> float:
        """Area under the ROC curve of "Sorry" against "Yes" on some validation items."""
        self.model.eval()
        some: list[Sample] = self.items[::PROGRESS_EVERY]
        margins = []
        for sample in some:
            told, _, request = sample.text.partition(". ")
            name = sample.groups["object"]
            ids = head(self.encoder, None if pictures else name, f"{told}.")
            ids = [*ids, *self.encoder.pieces(f" {request}<|end|>"), *self.encoder.pieces("<|assistant|>")]
            more = {"pixel_values": pixels_of([sample.images[0].arguments])} if pictures else {}
            logits = self.model(input_ids=torch.tensor([ids]), use_cache=False, logits_to_keep=1, **more).logits[0, -1]
            margins.append(float(logits[self.encoder.pieces("Sorry")[0]] - logits[self.encoder.pieces("Yes")[0]]))
        self.model.train()
        return float(roc_auc_score([sample.harmful for sample in some], margins))
