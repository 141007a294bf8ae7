"""Difference consistency (SAS, arXiv 2507.13255, read in the authors' code).

For matched pairs the differences ``h(unsafe_i) - h(safe_i)`` of one block are compared with each other: their mean
pairwise cosine is 0 where the differences point anywhere and 1 where one direction carries what separates the
members.  The null flips the sign of each pair's difference at random (swapping labels within pairs).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..stats.curve import Curve
from ..stats.resampling import Resampling
from .blocks import SelectedBlocks, iterate
from .measure import Measure, pair_rows, unit_rows
from .spec import Measured, MeasureSpec
from .study import Study


class DifferenceConsistency(Measure):
    """Mean pairwise cosine of paired differences, one value per block.

    Attributes:
        curve_: the measure; direction_ ``[block, d]``: mean of the unit differences, length one.
    """

    name = "difference_consistency"
    unit = "cosine"
    source = "arXiv 2507.13255 [code]"

    def fit(self, activations: Any, labels: Any, groups: Any = None, pairs: Any = None) -> DifferenceConsistency:
        """``labels``: larger value = unsafe; ``pairs`` names each sample's pair (default: ``groups``)."""
        pairs = groups if pairs is None else pairs
        unsafe, safe, _ = pair_rows(labels, pairs)
        group = None if groups is None else np.asarray(groups)[unsafe]
        weights = Resampling(group, self.replicates, self.random_state, n=len(unsafe)).weights().astype(np.float64)
        signs = np.random.default_rng(self.random_state + 1).choice([-1.0, 1.0], (self.permutations, len(unsafe)))
        value, replicates, null, directions = [], [], [], []
        for _, rows in iterate(activations, len(np.asarray(labels))):
            difference = unit_rows(rows[unsafe].astype(np.float64) - rows[safe])
            gram = difference @ difference.T
            ones = np.ones((1, len(gram)))
            value.append(_mean_cosine(gram, ones, ones)[0])
            replicates.append(_mean_cosine(gram, weights, ones))
            null.append(_mean_cosine(gram, np.ones_like(signs), signs))
            mean = difference.mean(0)
            directions.append(mean / max(np.linalg.norm(mean), 1e-300))
        self.direction_ = np.stack(directions)
        self.curve_ = self._keep(
            activations, value, replicates, null, len(unsafe), name="difference consistency", n_is="pairs"
        )
        return self

    def score(self, activations: Any, labels: Any, pairs: Any) -> np.ndarray:
        """Mean pairwise cosine of other pairs, ``[block]``."""
        unsafe, safe, _ = pair_rows(labels, pairs)
        out = []
        for _, rows in iterate(activations, len(np.asarray(labels))):
            difference = unit_rows(rows[unsafe].astype(np.float64) - rows[safe])
            ones = np.ones((1, len(unsafe)))
            out.append(_mean_cosine(difference @ difference.T, ones, ones)[0])
        return np.array(out)


def _mean_cosine(gram: np.ndarray, weights: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Mean over pairs of *different* items for each row of weights and signs, ``[draw]``."""
    off = gram - np.diag(np.diag(gram))
    signed = weights * signs
    total = ((signed @ off) * signed).sum(1)
    return total / (weights.sum(1) ** 2 - (weights**2).sum(1))


def _compute(study: Study) -> Measured:
    rows, labels, names, groups = study.pairs()

    def fit(activations: Any, **settings: int) -> Curve:
        measure = DifferenceConsistency(**(study.draws | settings))
        return measure.fit(SelectedBlocks(activations, rows), labels, groups, names).curve_

    curve = fit(study.evidence)
    return Measured(study.beside(curve, lambda x: fit(x, permutations=1), ("input_embedding", "image_only")))


SPEC = MeasureSpec(
    "difference_consistency", "perception", "cheap", DifferenceConsistency.source,
    "do the differences of matched pairs point one way?", _compute, expected=("input_embedding", "random_twin"),
    probes=0.3, planted="danger",
)  # fmt: skip
