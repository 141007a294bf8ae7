"""Refusal lost when the mean-difference direction of a block is taken out of the whole forward.

The choice among candidate directions is that of :mod:`lvlm_lens.causal.refusal_direction`; here the effect of each
block's own direction becomes a curve.  No random-weight twin stands beside it (it would cost as much again), and the
role says so.
"""

from __future__ import annotations

import numpy as np

from ..causal.refusal_direction import after_instruction, select_refusal_direction
from .editing import ITEMS, effect_curve, halves, progress_of
from .spec import Measured, MeasureSpec, Size
from .study import Study

TRAINED = 256
"""Items, half of them harmful, that directions are taken from."""


def _compute(study: Study) -> Measured:
    names = np.random.default_rng(study.seed).permutation(np.unique(study.groups))
    in_training = np.isin(study.groups, names[: len(names) // 2])
    parts = []
    for mask, count in ((in_training, TRAINED), (~in_training, ITEMS)):
        rows = halves(study, mask, count)
        parts.append([rows[study.labels[rows] == kind] for kind in (1, 0)])
    data = [tuple([study.samples[row] for row in rows] for rows in part) for part in parts]
    found = select_refusal_direction(
        study.model, data[0], data[1],  # type: ignore[arg-type]
        min(3, after_instruction(study.model, data[0][0][0])), batch_size=study.batch_size, seed=study.seed,
        progress=progress_of(study, "ablating directions"),
    )  # fmt: skip
    # resid_pre of block b + 1 is what block b wrote: the study counts blocks by what they write
    values = found.effects[:, [block + 1 for block in study.evidence.blocks]]
    groups = study.groups[parts[1][0]]
    curve = effect_curve(study, values, groups, "drop of refusal log-odds (nats)")
    embedding = effect_curve(study, found.effects[:, :1], groups, "nats")
    curve = curve.with_baseline("input_embedding", *(float(getattr(embedding, k)[0]) for k in ("value", "low", "high")))
    drawn = found.random.mean(0)
    curve = curve.with_baseline("random_direction", float(drawn.mean()), float(drawn.min()), float(drawn.max()))
    tables = {
        "chosen": found.chosen, "candidates": list(found.candidates), "base_harmful": found.base_harmful,
        "base_harmless": found.base_harmless, "counting": "source_block b: resid_pre of b, the output of b - 1",
        "trained_on": [len(part) for part in parts[0]], "validated_on": [len(part) for part in parts[1]],
    }  # fmt: skip
    return Measured(curve, tables=tables)


def _rows(size: Size) -> int:
    """Each candidate: ablated on both halves and added on one; the last position is ablated at every depth."""
    few, half = min(ITEMS, size.items), min(TRAINED, size.items // 2)
    positions, deep = 3, -int(-0.8 * size.blocks // 1)
    return half + few * 2 + (3 * positions * deep + size.blocks + 1 - deep) * few // 2


SPEC = MeasureSpec(
    "refusal_direction", "perception", "edits", "arXiv 2406.11717 [code]; effect by block and its null [own]",
    "refusal lost when the block's mean-difference direction is ablated; its choice by the "
    "published rule in the table", _compute, expected=("input_embedding", "random_twin"), rows=_rows,
    planted="refused danger",
)  # fmt: skip
