"""The linear probe on items that need picture and words together: the joint concept.

On these items neither the words nor the picture alone tell harm, so that what is read was made from both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ..stats.curve import Curve
from .items import check_labels, why_no_joint_items
from .linear_probe import LinearProbe, probed
from .spec import ALL_BASELINES, Measured, MeasureSpec

if TYPE_CHECKING:
    from .evidence import Evidence
    from .study import Study


def joint_curve(
    evidence: Evidence,
    twin: Evidence | None,
    y: np.ndarray,
    groups: np.ndarray,
    both: np.ndarray,
    settings: dict[str, Any],
) -> tuple[Curve | None, LinearProbe | None, str]:
    """The joint-concept curve, or why there is none."""
    if not both.any():
        return None, None, why_no_joint_items(evidence.samples)
    try:
        check_labels(y[both])
        curve, fitted = probed(
            "semantics", evidence.rows(both), None if twin is None else twin.rows(both), y[both], groups[both], settings
        )
    except DataError as error:
        return None, None, f"the joint concept cannot be measured: {error}"
    return curve, fitted, ""


def _compute(study: Study) -> Measured:
    if "semantics" not in study.located.curves:
        raise DataError(study.located.roles.semantics.reason)
    return Measured(study.located.curves["semantics"])


SPEC = MeasureSpec(
    "joint_probe",
    "semantics",
    "free",
    "linear probe on items that need picture and words together",
    "AUROC of the joint concept",
    _compute,
    default=True,
    expected=ALL_BASELINES,
    planted="conjunction",
)
