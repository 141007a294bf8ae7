"""Mean-difference direction (the detector of NEARSIDE: a unit mean-difference direction, threshold at the midpoint).

``r = mean(harmful) - mean(harmless)``, scaled to length one; a sample's score is its projection on r, and the
threshold is the midpoint of the projected class means.  The curve is the AUROC of out-of-fold projections (the
direction is formed without the fold's groups), the null that of shuffled labels.  All shuffles of a fold are one
matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UsageError
from ..stats.auroc import weighted_auroc
from ..stats.curve import Curve
from ..stats.resampling import group_folds, permute_labels
from .blocks import iterate
from .measure import Measure, two_kinds
from .spec import ALL_BASELINES, Measured, MeasureSpec
from .study import Study


@dataclass(eq=False, repr=False)
class MeanDifference(Measure):
    """AUROC of projections on the class-mean difference, one value per block.

    Args:
        folds: of whole groups.
        replicates, permutations, confidence, random_state: see :class:`~.measure.Measure`.

    Attributes:
        curve_; direction_ ``[block, d]`` (length one), threshold_ ``[block]``, both from all samples;
        fold_ ``[sample]``; scores_ ``[sample, block]`` out-of-fold, relative to the fold's own threshold.
    """

    name = "mean_difference"
    unit = "AUROC"
    source = "NEARSIDE, formula second-hand, not checked against the paper; cross-fitting [own]"

    folds: int = 5

    def fit(self, activations: Any, labels: Any, groups: Any = None) -> MeanDifference:
        """``labels``: larger value = harmful; ``groups`` stay on one side of a fold."""
        harmful = two_kinds(labels)
        n = len(harmful)
        self.fold_ = group_folds(harmful.astype(int), groups, self.folds, self.random_state)
        weights = self._weights(groups, n)
        shuffled = permute_labels(harmful, groups, self.permutations, self.random_state + 1)
        together = np.concatenate([harmful[None], shuffled])  # [1 + draw, sample]
        columns, replicates, null, directions, thresholds = [], [], [], [], []
        for _, rows in iterate(activations, n):
            rows = rows.astype(np.float64)
            scores = np.empty((n, len(together)))
            for k in range(self.folds):
                direction, threshold = _directions(rows[self.fold_ != k], together[:, self.fold_ != k])
                scores[self.fold_ == k] = rows[self.fold_ == k] @ direction.T - threshold
            columns.append(scores[:, 0])
            replicates.append(weighted_auroc(scores[:, 0], harmful, weights, self.fold_)[:, 0])
            drawn = zip(scores.T[1:], shuffled, strict=True)
            null.append(np.array([weighted_auroc(s, y, None, self.fold_)[0, 0] for s, y in drawn]))
            direction, threshold = _directions(rows, harmful[None])
            directions.append(direction[0])
            thresholds.append(threshold[0])
        self.scores_ = np.stack(columns, 1)
        self.direction_, self.threshold_ = np.stack(directions), np.array(thresholds)
        value = weighted_auroc(self.scores_, harmful, None, self.fold_)[0]
        self.curve_ = self._keep(activations, value, replicates, null, n, name="mean difference")
        return self

    def decision_function(self, activations: Any) -> np.ndarray:
        """Projection minus threshold, ``[sample, block]``."""
        out = []
        for at, (block, rows) in enumerate(iterate(activations)):
            if at >= len(self.direction_) or rows.shape[1] != self.direction_.shape[1]:
                raise UsageError(f"block {block}, width {rows.shape[1]}: not the blocks this measure was fitted on")
            out.append(rows.astype(np.float64) @ self.direction_[at] - self.threshold_[at])
        return np.stack(out, 1)

    def score(self, activations: Any, labels: Any) -> np.ndarray:
        """AUROC of projections of other samples, ``[block]``."""
        return weighted_auroc(self.decision_function(activations), labels)[0]


def _directions(rows: np.ndarray, harmful: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit mean differences ``[draw, d]`` and midpoint thresholds ``[draw]`` for labels ``[draw, row]``."""
    up = harmful @ rows / np.maximum(harmful.sum(1, keepdims=True), 1)
    down = ~harmful @ rows / np.maximum((~harmful).sum(1, keepdims=True), 1)
    direction = up - down
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-300)
    return direction, (direction * (up + down)).sum(1) / 2


def _compute(study: Study) -> Measured:
    def fit(activations: Any, **settings: int) -> Curve:
        measure = MeanDifference(study.folds, **(study.draws | settings))
        return measure.fit(activations, study.labels, study.groups).curve_

    return Measured(study.beside(fit(study.evidence), lambda x: fit(x, permutations=1)))


SPEC = MeasureSpec(
    "mean_difference", "perception", "cheap", MeanDifference.source,
    "AUROC of projections on the class-mean difference", _compute, default=True, expected=ALL_BASELINES, probes=0.7,
    planted="danger",
)  # fmt: skip
