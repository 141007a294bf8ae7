"""Ranking scores of binary labels under many bootstrap weights at once.

Every statistic takes integer weights, one per sample: how often its group was drawn.  So a thousand replicates of an
AUROC are one sort and a few cumulative sums, not a thousand sorts.

Sources: AUROC as the Mann-Whitney statistic with ties counted one half; average precision as in scikit-learn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError, NumericalError


def binary_labels(labels: Any) -> np.ndarray:
    """Labels as bool ``[sample]``; both classes must be there (0/1, False/True, or two sortable values)."""
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise DataError(f"labels have shape {labels.shape}; expected one label a sample")
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) != 2:
        raise DataError(
            f"labels hold {len(classes)} class(es) ({', '.join(map(str, classes[:4]))}); two are needed, "
            "harmful and harmless"
        )
    return codes.reshape(-1) == 1


def _columns(scores: Any, n: int) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape[0] != n or scores.ndim not in (1, 2):
        raise DataError(f"scores have shape {scores.shape} for {n} labels; expected [sample] or [sample, block]")
    if not np.isfinite(scores).all():
        raise NumericalError("scores hold NaN or infinity")
    return scores[:, None] if scores.ndim == 1 else scores


def _ones(weights: np.ndarray | None, n: int) -> np.ndarray:
    return np.ones((1, n)) if weights is None else np.atleast_2d(np.asarray(weights, dtype=np.float64))


def weighted_auroc(
    scores: Any, labels: Any, weights: np.ndarray | None = None, strata: np.ndarray | None = None
) -> np.ndarray:
    """Exact AUROC under each row of weights, ties counted one half.

    Args:
        scores: ``[sample, block]`` or ``[sample]``, larger means class 1.
        labels: ``[sample]``, two classes.
        weights: ``[replicate, sample]``, non-negative; ``None`` means one row of ones.
        strata: ``[sample]``; pairs are compared only within a stratum.  Given the fold, it compares only
            scores of one fitted probe (scores of different folds have different offsets, and pooling
            them biases the AUROC of uninformative features below one half).

    Returns:
        ``[replicate, block]`` float64; NaN where a replicate holds one class only.
    """
    positive = binary_labels(labels)
    n = len(positive)
    scores = _columns(scores, n)
    weights = _ones(weights, n).T  # [n, R]
    strata = np.zeros(n, dtype=np.int64) if strata is None else np.unique(strata, return_inverse=True)[1].reshape(-1)
    pairs = np.zeros(weights.shape[1])
    wins = np.zeros((weights.shape[1], scores.shape[1]))
    for stratum in range(strata.max() + 1):
        up, down = (np.flatnonzero((strata == stratum) & side) for side in (positive, ~positive))
        w_up, w_down = np.ascontiguousarray(weights[up]), weights[down]
        pairs += w_up.sum(0) * w_down.sum(0)
        below = np.zeros((len(down) + 1, weights.shape[1]))
        for block in range(scores.shape[1]):
            order = np.argsort(scores[down, block])
            np.cumsum(w_down[order], axis=0, out=below[1:])  # weight of the i lowest negatives
            lowest_first = scores[down, block][order]
            less = np.searchsorted(lowest_first, scores[up, block], "left")
            less_or_equal = np.searchsorted(lowest_first, scores[up, block], "right")
            beaten = below[less]
            if (less != less_or_equal).any():
                beaten = 0.5 * (beaten + below[less_or_equal])
            wins[:, block] += np.einsum("ir,ir->r", w_up, beaten)
    return np.divide(wins, pairs[:, None], out=np.full_like(wins, np.nan), where=pairs[:, None] > 0)


def auroc(scores: Any, labels: Any, strata: np.ndarray | None = None) -> Any:
    """Area under the ROC curve (exact, ties one half): float for ``[sample]``, ``[block]`` for ``[sample, block]``."""
    value = weighted_auroc(scores, labels, None, strata)[0]
    return float(value[0]) if np.ndim(scores) == 1 else value


def _ranked(scores: np.ndarray, w_pos: np.ndarray, w_neg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cumulated positive and negative weight at each distinct threshold, from the highest score down."""
    order = np.argsort(-scores, kind="stable")
    last = np.r_[scores[order][1:] != scores[order][:-1], True]
    return np.cumsum(w_pos[order], 0)[last], np.cumsum(w_neg[order], 0)[last]


def weighted_auprc(scores: Any, labels: Any, weights: np.ndarray | None = None) -> np.ndarray:
    """Average precision under each row of weights, ``[replicate, block]`` (scikit-learn's, not interpolated).

    Arguments as in :func:`weighted_auroc`.
    """
    positive = binary_labels(labels)
    scores = _columns(scores, len(positive))
    weights = _ones(weights, len(positive)).T
    w_pos, w_neg = weights * positive[:, None], weights * ~positive[:, None]
    out = np.empty((weights.shape[1], scores.shape[1]))
    for block in range(scores.shape[1]):
        tp, fp = _ranked(scores[:, block], w_pos, w_neg)
        precision = np.divide(tp, tp + fp, out=np.ones_like(tp), where=tp + fp > 0)
        gained = np.diff(tp, axis=0, prepend=0)
        with np.errstate(invalid="ignore"):
            out[:, block] = (precision * gained).sum(0) / tp[-1]
    return out


def auprc(scores: Any, labels: Any) -> Any:
    """Average precision: float for ``[sample]``, ``[block]`` for ``[sample, block]``."""
    value = weighted_auprc(scores, labels)[0]
    return float(value[0]) if np.ndim(scores) == 1 else value


def weighted_tpr_at_fpr(scores: Any, labels: Any, fpr: float = 0.01, weights: np.ndarray | None = None) -> np.ndarray:
    """Largest true-positive rate whose false-positive rate is at most ``fpr``, ``[replicate, block]``.

    With fewer than ``1 / fpr`` harmless samples this is the rate at no false positive at all.
    """
    positive = binary_labels(labels)
    scores = _columns(scores, len(positive))
    weights = _ones(weights, len(positive)).T
    w_pos, w_neg = weights * positive[:, None], weights * ~positive[:, None]
    out = np.empty((weights.shape[1], scores.shape[1]))
    for block in range(scores.shape[1]):
        tp, fp = _ranked(scores[:, block], w_pos, w_neg)
        allowed = fp <= fpr * fp[-1] + 1e-9
        with np.errstate(invalid="ignore"):
            out[:, block] = np.where(allowed, tp, 0).max(0) / tp[-1]
    return out


def expected_calibration_error(
    probability: Any, labels: Any, bins: int = 10, weights: np.ndarray | None = None
) -> np.ndarray:
    """Mean over equal-width bins of |share of class 1 - mean probability|, weighted by bin size (Guo et al. 2017).

    Args:
        probability: of class 1, ``[sample]`` or ``[sample, block]``.
        labels: ``[sample]``.
        bins: equal-width bins of [0, 1].
        weights: ``[replicate, sample]``; ``None`` means one row of ones.

    Returns:
        ``[replicate, block]``.
    """
    positive = binary_labels(labels)
    columns = _columns(probability, len(positive))
    weights = _ones(weights, len(positive))
    out = np.empty((len(weights), columns.shape[1]))
    for block, p in enumerate(columns.T):
        inside = np.minimum((p * bins).astype(int), bins - 1)[:, None] == np.arange(bins)  # [n, bin]
        out[:, block] = np.abs(weights @ (inside * (positive - p)[:, None])).sum(1) / weights.sum(1)
    return out
