"""Is a resumed cell what a plain forward with the same intervention gives?  Held against the noise and the effect.

A tolerance that is a share of the logits' size says little: in bfloat16 a tenth of the largest logit is more than most
patches change, so logits of an unpatched prompt would pass for any cell.  Two measured quantities decide here [own]:

* the **noise**: the same plain forward, hooks and all, run twice with another batch shape (every row twice).  What
  that changes is rounding; nothing finer can be asked of any engine.  It is never taken for less than one rounding unit
  of the model's dtype at the size of the logits.
* the cell's own **effect**: how far the plain forward with the intervention lies from the one without.

A cell whose effect is not above :data:`TOLD` times the noise cannot be told from it: both the right logits and those of
the unpatched prompt would pass, so it is counted apart and proves nothing.  Any other cell must be closer to its plain
forward than ``max(TOLD x noise, effect / 10)``, and in any case than :mod:`lvlm_lens.tolerance` allows.  So the
unpatched logits never pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..models.encode import Encoded
from ..models.loaded import LoadedModel
from ..tolerance import TOLD, allowed, largest
from .cell import Cell, full
from .engine import resume
from .recording import Recording

SHARE = 0.1
"""Largest difference from the plain forward, as a share of the cell's own effect, where the noise is smaller."""
Measure = Callable[[torch.Tensor, list[int]], np.ndarray]
"""From logits ``[n, vocab]`` and the rows that they belong to, to numbers ``[n]``."""
_TRIES = 4  # drawn cells for each that is to be told from the noise


@dataclass(frozen=True)
class Checked:
    """What the comparison found; all in logits, the largest over the vocabulary.

    Attributes:
        difference: ``[cell]`` from the plain forward; effect: ``[cell]`` of the intervention.
        noise: the largest over the cells, at least a rounding unit.
        bound: what :mod:`lvlm_lens.tolerance` allows in any case.
        metric_noise: the noise in the grid's metric, which its values are held against; at least a rounding unit too.
        dtype: of the model.
    """

    difference: np.ndarray
    effect: np.ndarray
    noise: float
    bound: float
    dtype: torch.dtype
    metric_noise: float

    @property
    def told(self) -> np.ndarray:
        """Bool ``[cell]``: the effect stands out from the noise."""
        return self.effect > TOLD * self.noise

    @property
    def allowed(self) -> np.ndarray:
        """``[cell]``: how far a cell may lie from its plain forward; one that proves nothing only by the bound."""
        own = np.where(self.told, np.maximum(TOLD * self.noise, SHARE * self.effect), np.inf)
        return np.minimum(own, max(self.bound, self.noise))

    @property
    def wrong(self) -> np.ndarray:
        """Bool ``[cell]``: not what the plain forward gives."""
        return ~(self.difference <= self.allowed)  # NaN is wrong

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a grid's ``verification``."""
        told = self.told
        chosen = told if told.any() else np.ones_like(told)
        found = {
            "cells": len(told),
            "told_from_noise": int(told.sum()),
            "max_abs_diff": float(self.difference.max()),
            "tolerance": float(self.allowed[chosen].min()),
            "smallest_effect": float(self.effect.min()),
            "noise": self.noise,
            "metric_noise": self.metric_noise,
            "wrong": int(self.wrong.sum()),
            "dtype": str(self.dtype).removeprefix("torch."),
        }
        return _with_note(found)


def verify(
    model: LoadedModel,
    rec: Recording,
    encoded: Encoded,
    cells: Sequence[Cell],
    count: int,
    measure: Measure,
    max_tokens: int,
    seed: int,
) -> Checked | None:
    """Compare ``count`` cells with plain forwards; ``None`` where there are no cells.

    They are drawn at random, from different rows where there are enough; cells that cannot be told from the noise do
    not count towards ``count`` while others are left, up to four draws for each that is asked.
    """
    order = np.random.default_rng(seed).permutation(len(cells))
    by_row: dict[int, list[int]] = {}
    for n in order:
        by_row.setdefault(cells[n].row, []).append(int(n))
    turns = [own[k] for k in range(len(cells)) for own in by_row.values() if k < len(own)]
    twice = model.encode([*encoded.samples, *encoded.samples])
    found: Checked | None = None
    for start in range(0, min(len(turns), _TRIES * count), max(count, 1)):
        some = [cells[n] for n in turns[start : start + count]]
        found = _joined(found, _compare(model, rec, (encoded, twice), some, measure, max_tokens))
        if found.told.sum() >= count or found.wrong.any():
            break
    return found


def _compare(
    model: LoadedModel,
    rec: Recording,
    batches: tuple[Encoded, Encoded],
    cells: Sequence[Cell],
    measure: Measure,
    max_tokens: int,
) -> Checked:
    fast = torch.zeros(len(cells), model.anatomy.vocab_size)
    for some, logits in resume(model, rec, cells, max_tokens):
        fast[some] = logits.cpu()
    plain, again = (full(model, encoded, cells).cpu() for encoded in batches)
    rows = [cell.row for cell in cells]
    values, other = (measure(logits.to(model.device), rows) for logits in (plain, again))
    assert rec.logits is not None
    untouched = rec.logits[rows].cpu()
    unit = torch.finfo(model.dtype).eps * max(1.0, largest(plain).max().item())
    return Checked(
        largest(fast - plain).numpy(),
        largest(plain - untouched).numpy(),
        max(unit, largest(plain - again).max().item()),
        allowed(model.dtype, plain),
        model.dtype,
        max(unit, float(np.abs(values - other).max())),
    )


def _joined(a: Checked | None, b: Checked) -> Checked:
    if a is None:
        return b
    return Checked(
        np.concatenate([a.difference, b.difference]),
        np.concatenate([a.effect, b.effect]),
        max(a.noise, b.noise),
        max(a.bound, b.bound),
        a.dtype,
        max(a.metric_noise, b.metric_noise),
    )


def joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The records of two directions as one."""
    if not one["cells"]:
        return other
    added = {name: one[name] + other[name] for name in ("cells", "told_from_noise", "wrong")}
    largest = {name: max(one[name], other[name]) for name in ("max_abs_diff", "noise", "metric_noise")}
    smallest = {name: min(one[name], other[name]) for name in ("tolerance", "smallest_effect")}
    return _with_note({**one, **added, **largest, **smallest})


def _with_note(record: dict[str, Any]) -> dict[str, Any]:
    """The record, saying how many cells proved nothing where there are such."""
    silent = record["cells"] - record["told_from_noise"]
    if silent:
        record["note"] = (
            f"the effect of {silent} of {record['cells']} compared cells cannot be told from the noise "
            f"({record['noise']:.1e} in the logits of the same forward in another batch shape), so they prove nothing"
        )
    return record
