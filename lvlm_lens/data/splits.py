"""What is learnt from and what is asked: one rule, so that every command keeps the two apart in the same way.

The data set's own splits ``train`` and ``test`` where it has both; else halves, whole groups at a time and stratified
by label.  Samples without a joint label are in neither.  Limits are those of :mod:`.limits`, of each part by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..stats.resampling import group_folds
from .groups import groups_of
from .limits import limited_rows
from .sample import Sample


def train_and_test(
    data: Sequence[Sample], train_limit: int | None = None, limit: int | None = None, seed: int = 0
) -> tuple[list[Sample], list[Sample]]:
    """The samples to learn from (at most ``train_limit``) and those to ask (at most ``limit``)."""
    known = [sample for sample in data if sample.harmful is not None]
    if {"train", "test"} <= {sample.split for sample in known}:
        parts = [[sample for sample in known if sample.split == name] for name in ("train", "test")]
    else:
        labels = np.array([sample.harmful for sample in known], dtype=np.int64)
        fold = group_folds(labels, groups_of(known), 2, seed)
        parts = [[sample for sample, k in zip(known, fold, strict=True) if k == side] for side in (0, 1)]
    train, test = (
        [part[row] for row in limited_rows(part, most, seed)]
        for part, most in zip(parts, (train_limit, limit), strict=True)
    )
    return train, test


def test_samples(data: Sequence[Sample], limit: int | None = None, seed: int = 0) -> list[Sample]:
    """The samples to ask where something else was learnt from: split ``test`` where there is one, else all."""
    known = [sample for sample in data if sample.harmful is not None]
    part = [sample for sample in known if sample.split == "test"] or known
    return [part[row] for row in limited_rows(part, limit, seed)]
