"""The perception probe by other scores: average precision, TPR at 1 % FPR, calibration error."""

from __future__ import annotations

from .spec import Measured, MeasureSpec
from .study import Study


def _compute(study: Study) -> Measured:
    probe = study.located.probes["perception"]
    rest = {f"probe_{metric}": probe.curve(metric) for metric in ("tpr_at_1_fpr", "ece")}
    return Measured(probe.curve("auprc"), rest)


SPEC = MeasureSpec(
    "probe_quality",
    None,
    "cheap",
    "average precision, TPR at 1 % FPR, expected calibration error",
    "the perception probe by other scores",
    _compute,
    votes=False,
    expected=(),
    planted="danger",
)
