"""Strength of a linear signal, block by block, on a scale that neither saturates nor grows with the number of items.

``signal_squared`` estimates ``delta' M delta``: the squared distance of the two classes' means in a metric.  The mean
difference of some folds is multiplied with that of the others, so that chance differences have expectation zero:
unlike an AUROC or a probe's d', the estimate does not rise with more items and reaches no ceiling (cross-validated
Mahalanobis distance, "crossnobis": Walther et al., NeuroImage 137, 2016; as a U-statistic the unbiased MMD with a
linear kernel).  With M the inverse of the noise covariance it is d' squared.

The noise is that of the *negative* class (Glass's delta, 1976): a positive class whose members carry the signal
unequally spreads along it, and a metric that held this spread would saturate again.  M is learnt on the training folds
with a ridge and is the same for all roles of a call.

The estimate is a quadratic form in the items' weights.  So a bootstrap over groups that learns the direction anew in
every replicate costs one product; copies of a group share its fold and never meet.  The metric follows to first
order: with noise covariance S and ridge r, ``M`` changes by ``-M (dS + r diag(dS)) M``.
[own in putting these together; level and coverage are measured by ``lvlm-lens selftest --audit``]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

RIDGE = 1.0
"""Added to the covariance of standardised features: directions of less than a feature's variance count less."""


def signal_squared(
    rows: Any,
    signs: Sequence[np.ndarray] | np.ndarray,
    fold: np.ndarray,
    weights: np.ndarray | None = None,
    strata: np.ndarray | None = None,
) -> np.ndarray:
    """Squared strength of each role in one block.

    Args:
        rows: ``[item, d]``.
        signs: ``[role, item]``: 1 for the positive class, -1 for the negative, 0 where the role does not ask the item.
        fold: ``[item]``, whole groups together.
        weights: ``[replicate, item]``, how often an item was drawn; ``None`` for one row of ones.
        strata: ``[item]``, kinds of items whose means differ; the noise is that within a kind.

    Returns:
        ``[role, replicate]`` float64; it can be negative; NaN where a class is missing on one side of every split.
    """
    signs = np.atleast_2d(np.asarray(signs))
    weights = np.ones((1, len(fold))) if weights is None else np.atleast_2d(np.asarray(weights, dtype=np.float64))
    fold = np.unique(fold, return_inverse=True)[1].reshape(-1)
    kinds = np.zeros(len(fold), np.int64) if strata is None else np.unique(strata, return_inverse=True)[1].reshape(-1)
    negative = (signs == -1).any(0)
    whole = _standardised(np.asarray(rows, dtype=np.float64), negative, kinds)
    x, basis = _reduced(whole)
    parts = [[_sums(x, sign == side, fold, weights) for side in (1, -1)] for sign in signs]
    top = np.zeros((len(signs), 2, 2, len(weights)))
    bottom = np.zeros_like(top)
    moved = np.zeros((len(signs), len(weights)))
    for k in range(fold.max() + 1):
        train = negative & (fold != k)
        within = _within(x, train, kinds)
        metric = _metric(within)
        for role, classes in enumerate(parts):
            direction = metric @ (x[signs[role] == 1].mean(0) - x[signs[role] == -1].mean(0))
            along = (within @ direction) ** 2
            along += RIDGE * _within(whole, train, kinds) ** 2 @ (direction if basis is None else basis @ direction) ** 2
            moved[role] += _changed(along, weights[:, train]) / (fold.max() + 1)
            for a, (own, count) in enumerate(classes):
                turned = own[k] @ metric
                for b, (others, number) in enumerate(classes):
                    top[role, a, b] += np.einsum("rd,rd->r", turned, others.sum(0) - others[k])
                    bottom[role, a, b] += count[k] * (number.sum(0) - number[k])
    mean = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)
    return mean[:, 0, 0] + mean[:, 1, 1] - mean[:, 0, 1] - mean[:, 1, 0] - moved


def scalar_signal_squared(scores: Any, positive: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The same of scores that need no learning, ``[replicate, block]``: Glass's delta times its own absolute value.

    Args:
        scores: ``[item, block]``, larger for the positive class.
        positive: ``[item]`` bool.
        weights: ``[replicate, item]``; ``None`` for one row of ones.
    """
    scores = np.asarray(scores, dtype=np.float64)
    weights = np.ones((1, len(positive))) if weights is None else np.asarray(weights, dtype=np.float64)
    up, down = weights * positive, weights * ~positive
    with np.errstate(invalid="ignore", divide="ignore"):
        above, below = (part @ scores / part.sum(1, keepdims=True) for part in (up, down))
        spread = np.sqrt(np.maximum(down @ scores**2 / down.sum(1, keepdims=True) - below**2, 0.0))
        delta = (above - below) / spread
    return delta * np.abs(delta)


def _within(x: np.ndarray, chosen: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """The chosen rows in their order, each less the mean of the chosen ones of its kind."""
    out = x[chosen]
    own = kinds[chosen]
    for kind in np.unique(own):
        out[own == kind] -= out[own == kind].mean(0)
    return out


def _standardised(x: np.ndarray, negative: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Rows over each feature's noise."""
    x = x - x.mean(0)
    scale = _within(x, negative, kinds).std(0)
    return x / np.where(scale > 0, scale, np.inf)  # a feature without noise says nothing in units of noise


def _reduced(x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows in as many dimensions as there are items at most (no product changes), and the basis ``[d, r]`` of these."""
    if x.shape[1] <= len(x):
        return x, None
    values, vectors = np.linalg.eigh(x @ x.T)
    kept = values > values[-1] * 1e-10
    lengths = np.sqrt(values[kept])
    return vectors[:, kept] * lengths, x.T @ (vectors[:, kept] / lengths)


def _sums(x: np.ndarray, asked: np.ndarray, fold: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums ``[fold, replicate, d]`` and counts ``[fold, replicate]`` of the asked items."""
    here = [np.flatnonzero(asked & (fold == k)) for k in range(fold.max() + 1)]
    return np.stack([weights[:, i] @ x[i] for i in here]), np.stack([weights[:, i].sum(1) for i in here])


def _metric(within: np.ndarray) -> np.ndarray:
    """Inverse of the noise covariance plus ridge, ``[d, d]``."""
    covariance = within.T @ within / max(1, len(within))
    covariance[np.diag_indices(len(covariance))] += RIDGE
    return np.linalg.inv(covariance)


def _changed(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean less the plain one, ``[replicate]``."""
    return weights @ values / np.maximum(weights.sum(1), 1e-9) - values.mean()
