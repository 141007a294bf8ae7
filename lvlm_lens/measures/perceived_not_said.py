"""Danger that is readable inside while the model answers: the excess share of such items, by block."""

from __future__ import annotations

import numpy as np

from ..stats.curve import curve_from_draws
from ..stats.resampling import Resampling, weighted_mean
from ..stats.threshold import above_by_block
from .spec import Measured, MeasureSpec
from .study import Study


def _compute(study: Study) -> Measured:
    """Excess share of items perceived and not refused, harmful over harmless, by block."""
    probe = study.located.probes["perception"]
    harmful, silent = study.labels == 1, ~study.refused

    def shares(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
        seen = (above_by_block(scores, labels, probe.fold_) & silent[:, None]).astype(float)
        with np.errstate(invalid="ignore"):
            return weighted_mean(seen, weights * labels) - weighted_mean(seen, weights * ~labels)

    one = np.ones((1, len(harmful)))
    weights = Resampling(study.groups, study.replicates, study.seed).weights().astype(float)
    null = [
        shares(scores, one, labels.astype(bool))[0]
        for scores, labels in zip(probe.null_scores_, probe.null_labels_, strict=True)
    ]
    value = shares(probe.scores_, one, harmful)[0]
    curve = curve_from_draws(
        "perceived_not_said", probe.blocks_, value, shares(probe.scores_, weights, harmful), np.stack(null),
        unit="excess share of items", n=len(harmful),
    )  # fmt: skip
    return Measured(curve)


SPEC = MeasureSpec(
    "perceived_not_said",
    None,
    "free",
    "[own]: perceived by the probe and not refused; excess over harmless items and its null",
    "danger readable inside, and the model answers",
    _compute,
    votes=False,
    expected=(),
    planted="answered danger",
)
