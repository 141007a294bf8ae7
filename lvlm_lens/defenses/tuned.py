"""A probe on equal terms: its regularisation is chosen by cross-validation by group, on features of any scale.

``C = 1`` on raw features rewards large features: the same features times three make another probe.  Here features are
scaled by one number, so that the mean squared distance of the training rows from their mean is 1, and C is the one of
:data:`CS` with the highest inner AUROC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from ..stats.auroc import weighted_auroc
from ..stats.crossfit import Settings, grid_scores
from ..stats.resampling import group_folds
from .probe import LogisticProbe

INNER = 4
CS = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
"""Candidates of C, for features scaled to a mean squared distance of 1 from their mean."""
UNTUNED = 100.0
"""C where too few groups of a class allow no inner cross-validation."""
_SETTINGS = Settings(standardize="rms", class_weight="balanced", tolerance=1e-3)


def coordinates(rows: np.ndarray) -> np.ndarray:
    """``rows [item, feature]`` rotated into their own span, ``[item, r]``, r at most the number of items.

    An L2-penalised probe does not see the rotation; ten thousand logits of a few hundred items become a few hundred.
    """
    rows = np.asarray(rows, dtype=np.float64)
    rows = rows - rows.mean(0)
    if rows.shape[1] <= len(rows):
        return rows
    scatter, turned = np.linalg.eigh(rows @ rows.T)
    keep = scatter > 1e-12 * max(scatter.max(), 1e-300)
    return turned[:, keep] * np.sqrt(scatter[keep]) if keep.any() else np.zeros((len(rows), 1))


def tuned_scores(
    rows: np.ndarray, labels: np.ndarray, trains: np.ndarray, folds: Sequence[np.ndarray | None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores by a probe whose C is chosen inside each training part.

    Args:
        rows: ``[item, r]`` coordinates.
        labels: ``[item]`` 0 or 1.
        trains: bool ``[split, item]``.
        folds: for each split, inner fold of every item (:func:`inner_folds`), ``None`` for no choice of C.

    Returns:
        ``scores [split, item]`` (NaN on the training part), inner AUROC and C of each split.
    """
    masks = list(trains)
    for train, fold in zip(trains, folds, strict=True):
        masks += [] if fold is None else [train & (fold != number) for number in range(fold.max() + 1)]
    varying = rows[:, rows.std(0) > 0]
    if not varying.shape[1]:  # nothing varies, so nothing is learnt
        return np.where(trains, np.nan, 0.0), np.full(len(trains), 0.5), np.full(len(trains), CS[0])
    cs = np.asarray(CS) / rows.shape[1]  # "rms" divides by the mean over features, CS means the sum
    grid = grid_scores(rows, labels[:, None], np.stack(masks), cs, _SETTINGS)[:, :, 0, :, 0]  # [item, mask, C]
    at = len(trains)
    scores, inner, chosen = np.empty(trains.shape), np.empty(at), np.empty(at)
    for split, (train, fold) in enumerate(zip(trains, folds, strict=True)):
        if fold is None:
            best = CS.index(UNTUNED)
            scores[split], inner[split], chosen[split] = grid[:, split, best], np.nan, UNTUNED
            continue
        count = int(fold.max()) + 1
        inside = np.flatnonzero(train)
        held = grid[inside, at + fold[inside]]  # [inside, C]
        at += count
        quality = np.round(weighted_auroc(held, labels[inside], None, fold[inside])[0], 6)
        best = int(quality.argmax())  # of equals the smallest C
        scores[split], inner[split], chosen[split] = grid[:, split, best], quality[best], CS[best]
    return scores, inner, chosen


def inner_folds(labels: np.ndarray, groups: np.ndarray, train: np.ndarray, seed: int) -> np.ndarray | None:
    """Inner fold of every item by group, -1 outside the training part; ``None`` where groups are too few."""
    inside = np.flatnonzero(train)
    fold = np.full(len(labels), -1)
    for count in range(min(INNER, len(np.unique(groups[inside]))), 1, -1):
        try:
            fold[inside] = group_folds(labels[inside], groups[inside], count, seed)
        except DataError:
            continue
        return fold
    return None


class TunedProbe:
    """L2 logistic regression, classes balanced, with C chosen as told above.

    Attributes (after ``fit``): ``C_`` for scaled features, ``probe_`` for raw ones.
    """

    def fit(self, rows: Any, labels: Any, groups: Any, seed: int = 0) -> TunedProbe:
        """Fit on ``rows [item, feature]``, labels of 0 and 1, and the items' groups."""
        rows, codes = np.asarray(rows), np.asarray(labels).astype(np.int64)
        every = np.ones(len(codes), dtype=bool)
        folds = [inner_folds(codes, np.asarray(groups), every, seed)]
        self.C_ = float(tuned_scores(coordinates(rows), codes, every[None], folds)[2][0])
        spread = float(rows.astype(np.float64).var(0).sum())
        self.probe_ = LogisticProbe(self.C_ / spread if spread > 0 else 1.0).fit(rows, codes)
        return self

    def decision_function(self, rows: Any) -> np.ndarray:
        """Log-odds of class 1, float64 ``[item]``."""
        return self.probe_.decision_function(rows)
