"""Fifth stage: does SASA's projection make danger easier to see on this model, and what do defences change?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..data import Dataset, Sample
from ..defenses.sasa_report import SASAReport, sasa_report
from ..errors import DataError
from ..locate.roles import LayerRoles
from ..models.lvlm import LVLM

Tell = Callable[[str, int, int], None]


def defence_stage(
    model: LVLM, data: Dataset, roles: LayerRoles, usable: set[str], seed: int, tell: Tell
) -> tuple[dict[str, Any], SASAReport | None]:
    """SASA's quick report on the labelled items; a plain summary with the verdict, beside the report.

    Blocks come from the located roles where perception begins before semantics, else from the map.
    """

    def keep(sample: Sample) -> bool:
        return sample.id in usable and sample.harmful is not None

    items = data.filter(keep)
    tell("SASA", 0, 1)
    try:
        report = sasa_report(model, items, roles=roles, quick=True, random_state=seed)
    except DataError as error:  # too few groups for its training and test parts
        tell("SASA", 1, 1)
        return {"done": False, "reason": str(error)}, None
    tell("SASA", 1, 1)
    return {"done": True, **report.to_dict()}, report
