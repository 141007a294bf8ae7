"""Mean effect of an intervention at each block, from effects measured sample by sample.

``activations`` here are per-sample effects ``[sample, block, 1]`` (or one column a variant; the first is the curve):
what a knocked-out flow, an ablated direction or a scaled range of blocks changes.  The null flips the sign of whole
groups at random (no effect on average); the interval is a bootstrap over groups.  [own; the sign-flip test of the
causal tools as a curve]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UsageError
from ..stats.resampling import Resampling, weighted_mean
from .blocks import iterate
from .measure import Measure


@dataclass(eq=False, repr=False)
class MeanEffect(Measure):
    """Mean effect by block.

    Args:
        unit_of: unit of the effects.
        replicates, permutations, confidence, random_state: see :class:`~.measure.Measure`.

    Attributes:
        curve_: mean of the first column; means_ ``[block, column]``.
    """

    name = "mean_effect"
    unit = "effect"
    source = "sign flips by group and cluster bootstrap, as in the causal tools [own]"

    unit_of: str = "effect"

    def fit(self, activations: Any, labels: Any = None, groups: Any = None) -> MeanEffect:
        """``activations [sample, block, column]``; ``labels`` are not used."""
        value, replicates, null, means = [], [], [], []
        weights: np.ndarray | None = None
        signs, n = np.empty((0, 0)), 0
        for _, rows in iterate(activations):
            if weights is None:
                n = len(rows)
                if groups is not None and len(np.asarray(groups)) != n:
                    raise UsageError(f"{len(np.asarray(groups))} groups for {n} samples")
                resampling = Resampling(groups, self.replicates, self.random_state, n=n)
                weights = resampling.weights().astype(np.float64)
                rng = np.random.default_rng(self.random_state + 1)
                flips = rng.choice([-1.0, 1.0], (self.permutations, len(resampling.names)))
                signs = flips[:, resampling.index]  # [draw, sample]
            first = rows[:, 0].astype(np.float64)
            value.append(first.mean())
            means.append(rows.mean(0, dtype=np.float64))
            replicates.append(weighted_mean(first, weights)[:, 0])
            null.append(signs @ first / n)
        self.means_ = np.stack(means)
        self.curve_ = self._keep(activations, value, replicates, null, n, name="mean effect", unit=self.unit_of)
        return self

    def score(self, activations: Any, labels: Any = None) -> np.ndarray:
        """Mean effect on other samples, ``[block]``."""
        return np.array([rows[:, 0].mean(dtype=np.float64) for _, rows in iterate(activations)])
