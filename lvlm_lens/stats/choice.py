"""The value at a block that was chosen because its value is high, without the luck of the choice.

*Chosen elsewhere*: for each fold the block that is best on the other folds is taken, and the value of the fold itself
is read there.  The mean over folds is what such a choice gives on items that had no part in it.  (The largest of many
values is above every one of them in expectation: with 30 equal blocks and 100 items an AUROC of .70 is printed as .81.)

:func:`fold_curve` is the curve of scores that were read within folds, with this value beside it.

*A simultaneous band* is for curves without folds: it holds the whole curve at once, so also the best block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .auroc import weighted_auroc
from .curve import Best, Curve, curve_from_draws
from .resampling import interval


def fold_aurocs(
    scores: Any, labels: Any, fold: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC of each fold's own items, ``[fold, replicate, block]``, and its numbers of pairs ``[fold, replicate]``.

    Args:
        scores: ``[item, block]``; labels: ``[item]``, 1 and 0; fold: ``[item]``.
        weights: ``[replicate, item]``; ``None`` for one row of ones.

    A fold that holds one class only has NaN and no pairs.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(bool)
    weights = np.ones((1, len(labels))) if weights is None else np.asarray(weights, dtype=np.float64)
    values, pairs = [], []
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        w, y = weights[:, rows], labels[rows]
        pairs.append(w[:, y].sum(1) * w[:, ~y].sum(1))
        both = y.any() and not y.all()
        values.append(weighted_auroc(scores[rows], y, w) if both else np.full((len(w), scores.shape[1]), np.nan))
    return np.stack(values), np.stack(pairs)


def blocks_chosen_elsewhere(aurocs: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """For each fold and replicate the position that is best on the other folds, ``[fold, replicate]``."""
    sums = np.where(pairs[..., None] > 0, np.nan_to_num(aurocs) * pairs[..., None], 0.0)
    return (sums.sum(0) - sums).argmax(-1)


def value_chosen_elsewhere(aurocs: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The value whose block was chosen on other folds, ``[replicate]``; NaN where no fold holds both classes."""
    chosen = blocks_chosen_elsewhere(aurocs, pairs)
    found = np.take_along_axis(np.nan_to_num(aurocs), chosen[..., None], -1)[..., 0]
    total = pairs.sum(0)
    return np.divide((found * pairs).sum(0), total, out=np.full(total.shape, np.nan), where=total > 0)


def simultaneous_band(value: Any, replicates: Any, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """``(low, high)``, each ``[block]``, of a band that holds the whole curve with the stated confidence.

    Args:
        value: ``[block]``.
        replicates: ``[replicate, block]``.
    """
    value, drawn = np.asarray(value, dtype=np.float64), np.asarray(replicates, dtype=np.float64)
    spread = np.nanstd(drawn, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.abs(drawn - value) / np.where(spread > 0, spread, np.nan)
    reach = float(np.quantile(np.nan_to_num(apart).max(1), confidence))
    return value - reach * spread, value + reach * spread


def fold_curve(
    name: str,
    blocks: Sequence[int],
    scores: np.ndarray,
    labels: np.ndarray,
    fold: np.ndarray,
    weights: np.ndarray | None,
    null: Sequence[tuple[np.ndarray, np.ndarray]],
    confidence: float = 0.95,
    **more: Any,
) -> Curve:
    """AUROC by block within folds, with the value at a block that is chosen on other folds.

    Args:
        name, blocks: of the curve.
        scores: ``[sample, block]``; labels, fold: ``[sample]``.
        weights: bootstrap weights ``[replicate, sample]``, or ``None`` for no interval.
        null: scores and labels of each shuffle.
        confidence: of the intervals.
        more: further fields of the curve.
    """
    everyone = np.ones((1, len(labels)))
    rows = everyone if weights is None else np.concatenate([everyone, weights])
    values, chosen = _within_folds(scores, labels, fold, rows)
    drawn = [_within_folds(s, y, fold, everyone) for s, y in null]
    curve = curve_from_draws(
        name, blocks, values[0], None if weights is None else values[1:],
        np.concatenate([pair[0] for pair in drawn]) if drawn else None, confidence, unit="AUROC", n=len(labels), **more,
    )  # fmt: skip
    if weights is None:
        return curve
    low, high = interval(chosen[1:], confidence)
    shuffled = np.concatenate([pair[1] for pair in drawn]) if drawn else None
    return replace(curve, best=Best(float(chosen[0]), float(low), float(high), chosen[1:], shuffled))


def _within_folds(
    scores: np.ndarray, labels: np.ndarray, fold: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC ``[replicate, block]`` of pairs within folds, and at a block chosen on other folds, ``[replicate]``."""
    aurocs, pairs = fold_aurocs(scores, labels, fold, weights)
    total = pairs.sum(0)[:, None]
    sums = (np.nan_to_num(aurocs) * pairs[..., None]).sum(0)
    whole = np.divide(sums, total, out=np.full_like(sums, np.nan), where=total > 0)
    return whole, value_chosen_elsewhere(aurocs, pairs)
