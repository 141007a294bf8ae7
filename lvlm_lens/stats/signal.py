"""Strength of a linear signal, block by block, on a scale that neither saturates nor grows with the number of items.

It estimates ``delta' M delta``: the squared distance of the two classes' means in a metric.  The mean
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


class Design:
    """Who is compared with whom, and how often: everything of :meth:`squared` that does not change with the block.

    Args:
        signs: ``[role, item]``: 1 for the positive class, -1 for the negative, 0 where the role does not ask the item.
        fold: ``[item]``, whole groups together.
        weights: ``[replicate, item]``, how often an item was drawn; ``None`` for one row of ones.
        strata: ``[item]``, kinds of items whose means differ; the noise is that within a kind.
    """

    def __init__(
        self,
        signs: Sequence[np.ndarray] | np.ndarray,
        fold: np.ndarray,
        weights: np.ndarray | None = None,
        strata: np.ndarray | None = None,
    ) -> None:
        self.signs = np.atleast_2d(np.asarray(signs))
        count = self.signs.shape[1]
        self.weights = np.ones((1, count)) if weights is None else np.atleast_2d(np.asarray(weights, np.float64))
        fold = np.unique(fold, return_inverse=True)[1].reshape(-1)
        self.kinds = np.zeros(count, np.int64)
        if strata is not None:
            self.kinds = np.unique(strata, return_inverse=True)[1].reshape(-1)
        self.negative = (self.signs == -1).any(0)
        folds = range(int(fold.max()) + 1)
        self.trains = [self.negative & (fold != k) for k in folds]
        rows = [
            [[np.flatnonzero((sign == side) & (fold == k)) for k in folds] for side in (1, -1)] for sign in self.signs
        ]
        self._cells = [[[(i, self.weights[:, i]) for i in part] for part in role] for role in rows]
        counts = np.array(
            [[[w.sum(1) for _, w in part] for part in role] for role in self._cells]
        )  # [role, 2, fold, R]
        held = counts.sum(2, keepdims=True) - counts
        self._pairs = np.einsum("xafr,xbfr->xabr", counts, held)
        self._drawn = np.stack([self.weights[:, train].sum(1) for train in self.trains])  # [fold, R]

    def squared(self, rows: Any) -> np.ndarray:
        """Squared strength of each role in one block of ``rows [item, d]``: ``[role, replicate]``, float64.

        It can be negative, and is NaN where a class is missing on one side of every split.
        """
        whole = _standardised(np.asarray(rows, dtype=np.float64), self.negative, self.kinds)
        x, basis = _reduced(whole)
        sums = [[np.stack([w @ x[i] for i, w in part]) for part in role] for role in self._cells]  # [fold, R, d] each
        held = [[part.sum(0) - part for part in role] for role in sums]
        top = np.zeros(self._pairs.shape)
        directions = np.stack([x[sign == 1].mean(0) - x[sign == -1].mean(0) for sign in self.signs], 1)  # [d, role]
        along = np.zeros((len(self.trains), len(x), len(self.signs)))  # [fold, item, role]
        for k, train in enumerate(self.trains):
            within = _within(x, train, self.kinds)
            metric = _metric(within)
            for role, classes in enumerate(sums):
                for a, own in enumerate(classes):
                    turned = own[k] @ metric
                    for b in (0, 1):
                        top[role, a, b] += np.einsum("rd,rd->r", turned, held[role][b][k])
            turned = metric @ directions
            features = turned if basis is None else basis @ turned
            spread = within if basis is None else _within(whole, train, self.kinds)
            along[k, train] = (within @ turned) ** 2 + RIDGE * (spread**2 @ features**2)
        mean = np.divide(top, self._pairs, out=np.full_like(top, np.nan), where=self._pairs > 0)
        return mean[:, 0, 0] + mean[:, 1, 1] - mean[:, 0, 1] - mean[:, 1, 0] - self._metric_moves(along)

    def _metric_moves(self, along: np.ndarray) -> np.ndarray:
        """Change ``[role, replicate]`` of the noise along the roles' directions, from its squares by fold and item."""
        folds, items, roles = along.shape
        flat = along.transpose(1, 0, 2).reshape(items, folds * roles)
        drawn = (self.weights @ flat).reshape(-1, folds, roles) / np.maximum(self._drawn.T, 1e-9)[..., None]
        plain = along.sum(1) / np.maximum([train.sum() for train in self.trains], 1)[:, None]  # [fold, role]
        return (drawn - plain).mean(1).T


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


def _metric(within: np.ndarray) -> np.ndarray:
    """Inverse of the noise covariance plus ridge, ``[d, d]``."""
    covariance = within.T @ within / max(1, len(within))
    covariance[np.diag_indices(len(covariance))] += RIDGE
    return np.linalg.inv(covariance)
