"""Does an effect beat its null?  Intervals, p-values and false-discovery control over a whole grid at once.

Pairs are resampled and sign-flipped by *group* (behaviour, image): pairs of one group are not independent.
Percentile cluster bootstrap (Efron & Tibshirani 1993); sign-flip permutation test with
``p = (1 + #{null >= observed}) / (1 + draws)`` (Phipson & Smyth 2010); Benjamini & Hochberg 1995.
Missing pairs (NaN) are left out cell by cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def _group_index(groups: Sequence[str]) -> tuple[np.ndarray, int]:
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    return index.reshape(-1), len(names)


def bootstrap_mean(
    effects: np.ndarray, groups: Sequence[str], replicates: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Interval ``(low, high)``, each ``[cell]``, of the mean over pairs of ``effects [cell, pair]``.

    NaN where all values are missing, or where there is one group only.
    """
    index, count = _group_index(groups)
    nothing = np.full(len(effects), np.nan)
    if count < 2:
        return nothing, nothing
    drawn = np.random.default_rng(seed).integers(0, count, (replicates, count))
    weights = np.zeros((replicates, count))
    np.add.at(weights, (np.repeat(np.arange(replicates), count), drawn.reshape(-1)), 1.0)
    weights = weights[:, index]  # [replicate, pair]
    there = np.isfinite(effects)
    total = weights @ np.where(there, effects, 0.0).T  # [replicate, cell]
    size = weights @ there.T.astype(float)
    means = np.divide(total, size, out=np.full_like(total, np.nan), where=size > 0)
    some = there.any(1)
    low, high = nothing.copy(), nothing.copy()
    if some.any():
        tail = (1 - confidence) / 2
        low[some], high[some] = np.nanquantile(means[:, some], [tail, 1 - tail], axis=0)
    return low, high


def sign_flip_p(differences: np.ndarray, groups: Sequence[str], draws: int = 4000, seed: int = 0) -> np.ndarray:
    """Two-sided p-value ``[cell]`` of mean 0, for ``differences [cell, pair]``; NaN where all are missing."""
    index, count = _group_index(groups)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (draws, count))[:, index]  # [draw, pair]
    there = np.isfinite(differences)
    filled = np.where(there, differences, 0.0)
    observed = np.abs(filled.sum(1))
    null = np.abs(signs @ filled.T)  # [draw, cell]
    # rounding must not decide ties: the flip of all signs gives the observed sum again
    p = (1 + (null >= observed * (1 - 1e-9) - 1e-12).sum(0)) / (1 + draws)
    return np.where(there.any(1), p, np.nan)
