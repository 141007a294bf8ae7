"""SafeVLM: a safety head beside the model that is trained first, and an adapter on the language model after it.

After the public description and code of PSA-VLM (arXiv 2411.11543), by the same authors with the same three modules and
stages as SafeVLM (arXiv 2405.13581); that both are one method is an inference.

* Stage I, the model frozen: safety tokens, safety projector and safety head (:mod:`.safevlm_side`) learn the level of
  risk (4) and its kind from ``10 (CE_level + CE_kind)``.
* Stage II, these frozen: LoRA on every linear layer of the language model, cross-entropy of the reference reply.
* At inference the head reads the request first.  Level 0, or the kind "safe": the plain request.  Else a hint by level
  and kind stands after the request: answer with care (1), you may refuse (2), refuse with these words (3).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.nn import functional as F

from ..data import Sample
from ..errors import DataError, ModelError, UsageError
from ..storage.arrays import save_arrays
from ..storage.commit import write_atomic
from .method import Job, Row
from .safevlm_side import MODES, Mode, SideModule, read_request
from .sft import SFT

if TYPE_CHECKING:
    from ..lens import LVLM

WEIGHTS, CARD = "safevlm.safetensors", "safevlm.json"
SAFE = "safe"


@dataclass(eq=False, repr=False)
class SafeVLM(SFT):
    """SafeVLM, an approximation after PSA-VLM's public description.

    Args:
        mode: what the head reads: ``paper`` (the first text position, which no word of the request reaches) or
            ``fixed`` (the mean over the request's positions).
        head_steps: optimiser steps of stage I; head_rate: their learning rate.
        tokens: safety tokens; queries: picture features after pooling, a square number.
    """

    name = "safevlm"
    title = "SafeVLM (approximation after PSA-VLM)"
    source = "arXiv 2405.13581, read through the code of PSA-VLM, arXiv 2411.11543"
    approximation = (
        "sizes are scaled down (8 tokens, 16 queries, one stage of convolutions on each side of the pooling); the "
        "second set of safety tokens, which stands before the picture inside the language model, is left out; levels "
        "and kinds come from the data's labels and categories; the hints are our own words"
    )
    files = (WEIGHTS,)

    mode: Mode = "fixed"
    head_steps: int = 200
    head_rate: float = 1e-3
    tokens: int = 8
    queries: int = 16

    def prepare(self, model: LVLM, rows: Sequence[Row], job: Job) -> None:
        """Stage I; what an earlier start finished is kept."""
        if self.mode not in MODES or self.head_steps < 1:
            raise UsageError(f"mode={self.mode!r}, head_steps={self.head_steps}; write paper or fixed, at least 1")
        if (job.folder / CARD).is_file() and (job.folder / WEIGHTS).is_file():
            return
        samples = [row.sample for row in rows]
        kinds = kinds_of(samples)
        job.say(f"stage I: head of {len(kinds)} kinds on {len(samples)} requests")
        torch.manual_seed(job.settings.seed)
        side, log = train_side(self, model, samples, kinds, job.settings.batch_size, job.settings.seed)
        save_arrays(job.folder / WEIGHTS, {name: value.cpu().numpy() for name, value in side.state_dict().items()})
        card = {"kinds": kinds, "seen": _seen(side), "width": model.anatomy.d_model, **self.get_params(), "log": log}
        write_atomic(job.folder / CARD, json.dumps(card, indent=1))


def kinds_of(samples: Sequence[Sample]) -> list[str]:
    """Kinds of risk: the data's own categories of harmful samples, and ``safe`` as the last.

    Raises :class:`DataError` where no sample is harmful, or none is harmless.
    """
    labels = [sample.harmful for sample in samples]
    if 1 not in labels or 0 not in labels:
        raise DataError("safevlm learns to tell harmful from harmless requests, and the data hold one of them only")
    return [*sorted({sample.category or "harm" for sample in samples if sample.harmful == 1}), SAFE]


def level_of(sample: Sample) -> int:
    """The level of risk: ``safe_level`` where the data hold it; else 3 for what is harmful, 1 for what is harmless with
    words or a picture that are unsafe by themselves, 0 for the rest.  [own]"""
    told = sample.meta.get("safe_level")
    if told is not None:
        return int(told)
    if sample.harmful == 1:
        return 3
    return int("unsafe" in (sample.label_image, sample.label_text))


def train_side(
    method: SafeVLM, model: LVLM, samples: Sequence[Sample], kinds: Sequence[str], batch: int, seed: int
) -> tuple[SideModule, list[dict[str, float]]]:
    """Stage I: the side module and its loss by step."""
    first = next((sample for sample in samples if sample.images), None)
    picture = None if first is None else read_request(model, first)[1]
    seen = 0 if picture is None else picture.shape[-1]
    side = SideModule(model.anatomy.d_model, seen, len(kinds), method.tokens, method.queries, method.mode)
    side.to(model.device)
    optimizer = torch.optim.AdamW(side.parameters(), lr=method.head_rate)
    levels = torch.tensor([level_of(sample) for sample in samples], device=model.device)
    named = [sample.category or "harm" if sample.harmful == 1 else SAFE for sample in samples]
    which = torch.tensor([kinds.index(name) for name in named], device=model.device)
    generator = torch.Generator().manual_seed(seed)
    log: list[dict[str, float]] = []
    for step in range(method.head_steps):
        rows = torch.randint(len(samples), (batch,), generator=generator)
        read = [read_request(model, samples[int(row)]) for row in rows]
        level, kind = side([words for words, _ in read], [features for _, features in read])
        loss = 10 * (F.cross_entropy(level, levels[rows]) + F.cross_entropy(kind, which[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log.append({"step": step + 1, "loss": float(loss.detach())})
    return side.eval(), log


def _seen(side: SideModule) -> int:
    return 0 if side.map is None else side.map[0].in_features  # type: ignore[return-value]


def load_side(folder: Path) -> tuple[SideModule, list[str]]:
    """The side module of a trained folder and its kinds; :class:`ModelError` where its files are missing or broken."""
    try:
        card: Mapping[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
        side = SideModule(
            card["width"], card["seen"], len(card["kinds"]), card["tokens"], card["queries"], card["mode"]
        )  # fmt: skip
        side.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"folder {folder.name!r} holds no SafeVLM head that can be read: {error}") from error
    return side.eval(), list(card["kinds"])
