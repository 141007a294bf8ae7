"""Two-nearest-neighbour intrinsic dimension of a block's point cloud (Facco et al. 2017).

Duplicates are removed first (the estimator divides by the first neighbour's distance); below 1000 points the estimate
is rough and ``meta['few']`` says so.  It has no labels and so no label null; beside it stands the same estimate on
Gaussian points with the block's covariance (baseline ``gaussian``): a curve below it shows curvature or clusters, not
merely a falling spectrum.  [own]

A bootstrap repeats points, and a repeated point is its own neighbour; so intervals here come from half samples of
groups without replacement, whose spread around the full estimate equals the sampling error at full size
(delete-half jackknife, Shao & Wu 1989), recentred on the estimate.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import numpy as np

from ..errors import DataError
from ..stats.resampling import half_samples, recentred
from .blocks import iterate
from .measure import Measure
from .spec import Measured, MeasureSpec
from .study import Study

FARTHEST = 0.1
"""Share of the largest ratios of distances that the line is fitted without, as Facco et al. do."""


def two_nn(points: np.ndarray) -> float:
    """Two-nearest-neighbour intrinsic dimension of ``[point, d]``, duplicates removed (Facco et al. 2017, section 2).

    The ratio of a point's second to its first neighbour's distance is Pareto distributed with the dimension as its
    exponent: the dimension is the slope, through the origin, of ``-log(1 - F)`` over the logarithm of the ratio.
    """
    from sklearn.neighbors import NearestNeighbors

    distinct = np.unique(points.astype(np.float64), axis=0)
    if len(distinct) < 20:
        raise DataError(f"{len(distinct)} distinct points; the two-nearest-neighbour estimate needs at least 20")
    near = NearestNeighbors(n_neighbors=2).fit(distinct).kneighbors()[0]  # [point, 2], a point is not its own
    near = near[near[:, 0] > 0]  # points apart by less than the rounding of their distance
    kept = int(len(near) * (1 - FARTHEST))
    x = np.log(np.sort(near[:, 1] / near[:, 0])[:kept])
    y = -np.log1p(-np.arange(1, kept + 1) / len(near))
    return float(x @ y / (x @ x))


@dataclass(eq=False, repr=False)
class IntrinsicDimension(Measure):
    """Two-nearest-neighbour intrinsic dimension by block.

    Args:
        replicates: half samples for the interval (each costs a neighbour search).
        permutations: Gaussian surrogates for the baseline.
        confidence, random_state: see :class:`~.measure.Measure`.

    Attributes:
        curve_: dimension, with baseline ``gaussian``; no null (there are no labels to shuffle).
    """

    name = "intrinsic_dimension"
    unit = "dimensions"
    source = "two nearest neighbours, Facco et al. 2017; Gaussian surrogate [own]"

    _: KW_ONLY
    replicates: int = 30
    permutations: int = 5

    def fit(self, activations: Any, labels: Any = None, groups: Any = None) -> IntrinsicDimension:
        """``labels`` are not used; ``groups`` are halved together."""
        rng = np.random.default_rng(self.random_state)
        value, draws, surrogates, n = [], [], [], 0
        masks: np.ndarray | None = None
        for _, rows in iterate(activations):
            n = len(rows)
            masks = half_samples(groups, n, self.replicates, self.random_state) if masks is None else masks
            value.append(two_nn(rows))
            draws.append(recentred(np.array([two_nn(rows[m]) for m in masks]), value[-1]))
            centred = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
            # A Gaussian with the sample's covariance: random combinations of the centred rows.
            made = (rng.standard_normal((n, n)) @ centred / np.sqrt(n) for _ in range(self.permutations))
            surrogates.append([two_nn(points) for points in made])
        curve = self._keep(activations, value, draws, None, n, name="intrinsic dimension", few=n < 1000)
        made_by_block = np.array(surrogates)
        self.curve_ = curve.with_baseline("gaussian", made_by_block.mean(1), made_by_block.min(1), made_by_block.max(1))
        return self

    def score(self, activations: Any, labels: Any = None) -> np.ndarray:
        """Dimension of other samples, ``[block]``."""
        return np.array([two_nn(rows) for _, rows in iterate(activations)])


def _compute(study: Study) -> Measured:
    curve = (
        IntrinsicDimension(replicates=20, permutations=3, random_state=study.seed)
        .fit(study.evidence, None, study.groups)
        .curve_
    )
    return Measured(replace(curve, meta={**curve.meta, "no_null": "there are no labels to shuffle"}))


SPEC = MeasureSpec(
    "intrinsic_dimension", None, "cheap", IntrinsicDimension.source, "two-nearest-neighbour dimension of the cloud",
    _compute, votes=False, expected=(),
    untested="it describes a cloud and has no null, so it never says that something begins",
)  # fmt: skip
