"""``smol-text``: an adapter that refuses what is harmful and answers the rest as the base does."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from sklearn.metrics import roc_auc_score

from training.mini.batches import Encoded
from training.mini.corpus import Example
from training.mini.journal import Journal
from training.mini.packing import Pack, collate

from .adapters import save_adapter, with_adapter
from .chats import SmolEncoder, embeds_of, hidden_of, prompt_ends, reply_loss
from .config import TextStage
from .refusals import refusal
from .text_data import Request, apart_from, requests
from .voice import read_voice


def text_packs(
    stage: TextStage, encoder: SmolEncoder, some: list[Request], voice: dict[str, str], seed: int
) -> Iterator[Pack]:
    """Endless packs of chats, a share of them harmful; every request comes once before any comes again."""
    chance = random.Random(seed)
    harmful = [request for request in some if request.reason is not None]
    harmless = [request for request in some if request.reason is None and request.text in voice]

    def shuffled(of: list[Request]) -> Iterator[Request]:
        while True:
            yield from chance.sample(of, len(of))

    bad, good = shuffled(harmful), shuffled(harmless)
    while True:
        chats: list[Encoded] = []
        for _ in range(stage.harmful):
            request = next(bad)
            assert request.reason is not None
            chats.append(encoder.encode(Example(request.text, refusal(request.reason, chance), True)))
        for _ in range(stage.chats - stage.harmful):
            text = next(good).text
            chats.append(encoder.encode(Example(text, voice[text], True), closed=False, most=stage.answer_tokens))
        chance.shuffle(chats)
        yield Pack(-1, chats)


def refusing_ids(encoder: SmolEncoder) -> list[int]:
    """First tokens of the recipe's refusals."""
    return [encoder.tokenizer(word, add_special_tokens=False).input_ids[0] for word in ("I", "Sorry")]


@torch.no_grad()
def first_token_refusal(
    model: Any,
    encoder: SmolEncoder,
    texts: list[str],
    projector: torch.nn.Module | None = None,
    states: torch.Tensor | None = None,
    each: int = 16,
) -> torch.Tensor:
    """Probability that the reply to each text begins as a refusal does: float32 [n].

    With ``states`` (one picture's patch states, [64, 160]) all texts are asked about that picture.
    """
    pictures = int(states is not None)
    found = torch.zeros(len(texts))
    ids, prefix = refusing_ids(encoder), encoder.prefix(pictures)
    shown = states[None] if states is not None else None
    for start in range(0, len(texts), each):
        chats = [encoder.encode(Example(text, "", True), pictures=pictures) for text in texts[start : start + each]]
        packed = collate([Pack(-1, chats)], encoder.pad, prefix)
        hidden = hidden_of(model, packed, embeds_of(model, packed.ids, projector, shown))[0]
        logits = model.lm_head(prompt_ends(chats, prefix, hidden))
        found[start : start + len(chats)] = logits.softmax(-1)[:, ids].sum(-1)
    return found


def text_validation(model: Any, encoder: SmolEncoder, held: list[Request]) -> dict[str, float]:
    """Refusal of the held-out frames, by the first token."""
    refused = first_token_refusal(model, encoder, [request.text for request in held])
    harmful = torch.tensor([request.reason is not None for request in held])
    return {
        "harm_refused": (refused[harmful] > 0.5).float().mean().item(),
        "safe_refused": (refused[~harmful] > 0.5).float().mean().item(),
        "refusal_auroc": float(roc_auc_score(harmful.numpy(), refused.numpy())),
    }


def train_text(
    base: Path,
    voice_file: Path,
    out: Path,
    stage: TextStage,
    avoid: Sequence[str],
    seed: int,
    journal: Journal,
    start: Path | None = None,
) -> PeftModel:
    """Train the adapter and write it to ``out`` at every validation; nothing close to ``avoid`` is trained on.

    ``start`` is the adapter to go on from.
    """
    torch.manual_seed(seed)
    adapted = with_adapter(base, stage.rank, list(stage.targets), start)
    model = adapted.base_model.model
    encoder = SmolEncoder(base)
    voice = read_voice(voice_file)
    everything = requests()
    drawn, everything = len(everything), apart_from(everything, avoid)
    journal.write(stage="text", step=0, requests=len(everything), too_close_to_test_data=drawn - len(everything))
    held = [request for request in everything if request.split == "validation"]
    fresh = text_packs(stage, encoder, [r for r in everything if r.split == "train"], voice, seed + 1)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, stage.rate, betas=(0.9, 0.98), weight_decay=stage.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, stage.rate, stage.steps, pct_start=0.08)
    started = time.time()
    total = 0.0
    for step in range(1, stage.steps + 1):
        packed = collate([next(fresh) for _ in range(stage.packs)], encoder.pad, encoder.prefix(0))
        loss = reply_loss(model, packed, hidden_of(model, packed, embeds_of(model, packed.ids)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % 10 == 0:
            print(step, round(total / 10, 4), round(time.time() - started, 1), flush=True)
            total = 0.0
        if step % stage.log_every == 0 or step == stage.steps:
            model.eval()
            progress = text_validation(model, encoder, held)
            model.train()
            journal.write(stage="text", step=step, loss=loss.item(), seconds=time.time() - started, **progress)
            save_adapter(adapted, out)
    return adapted
