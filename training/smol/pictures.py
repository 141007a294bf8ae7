"""``smol``: projector and decoder learn to answer about pictures, and text among it keeps harm in words refused.

Visual instruction tuning on the world of ``mini`` without anything its set holds out
(:mod:`training.mini.corpus` leaves out combinations and wordings, the gallery
renderings and styles), seven requests in ten harmless, several questions to a picture.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from lvlm_lens.data.mini.activities import ACTIVITIES, reason_against
from lvlm_lens.data.mini.items import quads
from lvlm_lens.data.mini.objects import THINGS
from training.mini.batches import Encoded
from training.mini.corpus import Example, draw, in_words, makers
from training.mini.journal import Journal
from training.mini.packing import Pack, collate, packs_of
from training.mini.vision import Gallery, tower_states

from .adapters import save_adapter, with_adapter
from .chats import SmolEncoder, embeds_of, hidden_of, reply_loss
from .config import PictureStage, TextStage
from .knowledge import Knowledge
from .opposites import opposites, opposites_in_words
from .projector import tower_of_mini
from .text import first_token_refusal, text_packs, text_validation
from .text_data import apart_from, requests
from .voice import read_voice


def picture_packs(
    stage: PictureStage, encoder: SmolEncoder, knowledge: Knowledge, gallery: Gallery, seed: int
) -> Iterator[Pack]:
    """Endless pictures with questions about each."""
    chance = random.Random(seed)
    table = makers(stage.harmful_share)

    def chat() -> tuple[str, Encoded]:
        if chance.random() < stage.knowledge_share:
            drawn = knowledge(chance)
            return drawn.thing, encoder.encode(drawn.example, pictures=1, closed=False, most=stage.answer_tokens)
        drawn = draw(chance, stage.mix, table)
        return drawn.thing, encoder.encode(drawn.example, pictures=1)

    if not stage.opposites:
        return packs_of(chat, stage.questions, gallery.of, chance)
    return _opposite_packs(stage, encoder, chat, gallery, chance)


def _opposite_packs(
    stage: PictureStage,
    encoder: SmolEncoder,
    chat: Callable[[], tuple[str, Encoded]],
    gallery: Gallery,
    chance: random.Random,
) -> Iterator[Pack]:
    """Two pictures of :func:`~.opposites.opposites` after each other, with ``stage.questions`` others about each."""
    others: dict[str, list[Encoded]] = {}
    for _ in range(6000):
        thing, encoded = chat()
        others.setdefault(thing, []).append(encoded)
    while True:
        found = opposites(chance, stage.opposites)
        for thing, examples in zip(found.things, found.examples, strict=True):
            chats = [encoder.encode(one, pictures=1) for one in examples]
            chats += chance.sample(others[thing], stage.questions)
            yield Pack(chance.choice(gallery.of[thing]), chats)


def replay_packs(
    stage: PictureStage, encoder: SmolEncoder, voice: dict[str, str], avoid: Sequence[str], seed: int
) -> Iterator[Pack]:
    """Endless rows of text: contrasts of ``smol-text`` and the world of ``mini`` told in words."""
    chance = random.Random(seed)
    some = [request for request in apart_from(requests(), avoid) if request.split == "train"]
    rows = text_packs(TextStage(chats=stage.contrasts, harmful=stage.contrasts // 2), encoder, some, voice, seed + 1)
    table = makers(0.5)
    while True:
        told = [in_words(chance, draw(chance, stage.replay_mix, table)) for _ in range(stage.told)]
        if stage.opposites:
            told += opposites_in_words(chance, stage.opposites)
        yield Pack(-1, [*next(rows).chats, *map(encoder.encode, told)])


class Validation:
    """The embedded set's validation quads, told and shown: naming and refusal by the reply's first words."""

    def __init__(self, encoder: SmolEncoder) -> None:
        self.encoder = encoder
        self.quads = [quad for quad in quads() if quad.split == "validation"]
        tower = tower_of_mini()
        self.states = [tower_states(tower, list(quad.pictures)) for quad in self.quads]

    @torch.no_grad()
    def __call__(self, model: Any, projector: torch.nn.Module) -> dict[str, float]:
        """Rates of the joint part (cards apart)."""
        refused: list[float] = []
        harmful: list[bool] = []
        named: list[bool] = []
        for quad, states in zip(self.quads, self.states, strict=True):
            if quad.part != "joint":
                continue
            texts = [
                ACTIVITIES[key].question(*phrasing)
                for key, phrasing in zip(quad.activities, quad.phrasings, strict=True)
            ]
            for thing, shown in zip(quad.things, states, strict=True):
                refused += first_token_refusal(model, self.encoder, texts, projector, shown).tolist()
                harmful += [reason_against(THINGS[thing], ACTIVITIES[key]) is not None for key in quad.activities]
                named.append(self._names(model, projector, thing, shown))
        harm = torch.tensor(harmful)
        rate = torch.tensor(refused)
        return {
            "named": sum(named) / len(named),
            "joint_harm_refused": (rate[harm] > 0.5).float().mean().item(),
            "joint_safe_refused": (rate[~harm] > 0.5).float().mean().item(),
            "joint_auroc": float(roc_auc_score(harm.numpy(), rate.numpy())),
        }

    def _names(self, model: Any, projector: torch.nn.Module, thing: str, states: torch.Tensor) -> bool:
        """Whether every token of the name is the likeliest one in "This is a NAME.\""""
        example = Example("What is this?", f"This is {THINGS[thing].a}.", False, thing)
        chat = self.encoder.encode(example, pictures=1)
        packed = collate([Pack(-1, [chat])], self.encoder.pad, self.encoder.prefix(1))
        hidden = hidden_of(model, packed, embeds_of(model, packed.ids, projector, states[None]))[0]
        best = model.lm_head(hidden).argmax(-1)
        end = len(chat.ids) - 2  # the full stop and the end of the turn follow the name
        start = end - len(self.encoder.pieces(f" {thing}"))
        return best[start - 1 : end - 1].tolist() == chat.ids[start:end]


def save_projector(projector: torch.nn.Module, path: Path) -> None:
    """Write the projector's state dict in float16."""
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in projector.state_dict().items()}
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)


def train_pictures(
    base: Path,
    start: Path,
    projector: torch.nn.Module,
    gallery: Gallery,
    out: Path,
    stage: PictureStage,
    avoid: Sequence[str],
    seed: int,
    journal: Journal,
) -> PeftModel:
    """Tune projector and an adapter that begins as the one in ``start`` ended; written to ``out`` at every validation.

    ``out`` holds the base's own answers, ``voice.jsonl`` and ``knowledge.jsonl``.
    """
    torch.manual_seed(seed)
    adapted = with_adapter(base, stage.rank, list(stage.targets), start)
    model = adapted.base_model.model
    encoder = SmolEncoder(base)
    shown = picture_packs(stage, encoder, Knowledge(read_voice(out / "knowledge.jsonl")), gallery, seed + 1)
    told = replay_packs(stage, encoder, read_voice(out / "voice.jsonl"), avoid, seed + 2)
    validation = Validation(encoder)
    held = [request for request in apart_from(requests(), avoid) if request.split == "validation"][: stage.held_texts]
    lora = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    seeing = list(projector.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": lora}, {"params": seeing, "lr": stage.projector_rate}],
        stage.rate,
        betas=(0.9, 0.98),
        weight_decay=0,
    )
    rates = [stage.rate, stage.projector_rate]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, stage.schedule, pct_start=0.06)
    started = time.time()
    seen_total = told_total = 0.0
    for step in range(1, stage.steps + 1):
        some = [next(shown) for _ in range(stage.pictures)]
        seen = collate(some, encoder.pad, encoder.prefix(1))
        states = gallery.states[[pack.picture for pack in some]].float()
        text = collate([next(told) for _ in range(stage.replay_rows)], encoder.pad, encoder.prefix(0))
        optimizer.zero_grad(set_to_none=True)
        seen_loss = reply_loss(model, seen, embeds_of(model, seen.ids, projector, states))
        seen_loss.backward()
        told_loss = reply_loss(model, text, embeds_of(model, text.ids))
        (stage.replay_weight * told_loss).backward()
        torch.nn.utils.clip_grad_norm_([*lora, *seeing], 1.0)
        optimizer.step()
        schedule.step()
        seen_total, told_total = seen_total + seen_loss.item(), told_total + told_loss.item()
        if step % 10 == 0:
            seconds = round(time.time() - started, 1)
            print(step, round(seen_total / 10, 4), round(told_total / 10, 4), seconds, flush=True)
            seen_total = told_total = 0.0
        if step % stage.log_every == 0 or step == stage.steps:
            save_adapter(adapted, out / "picture_adapter")
            save_projector(projector, out / "projector.safetensors")
            progress = validation(model, projector) | text_validation(model, encoder, held)
            losses = {"loss": seen_loss.item(), "replay_loss": told_loss.item()}
            journal.write(stage="pictures", step=step, seconds=time.time() - started, **losses, **progress)
    return adapted
