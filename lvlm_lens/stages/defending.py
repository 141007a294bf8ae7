"""Fifth stage: does SASA's projection make danger easier to see on this model, and what do a few defences change?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..data import Dataset, Sample
from ..defenses import SASA, Defense, FirstTokenProbe, SafetyPrompt
from ..defenses.sasa_report import SASAReport, sasa_report
from ..errors import DataError, ModelError, UsageError
from ..evaluate.evaluation import EvaluationResult, evaluate
from ..locate.roles import LayerRoles
from ..models.lvlm import LVLM

Tell = Callable[[str, int, int], None]


def defence_stage(
    model: LVLM, data: Dataset, roles: LayerRoles, usable: set[str], seed: int, tell: Tell
) -> tuple[dict[str, Any], SASAReport | None]:
    """SASA's quick report on the labelled items; a plain summary with the verdict, beside the report.

    Blocks come from the located roles where perception begins before semantics, else from the map.
    """

    items = _labelled(data, usable)
    tell("SASA", 0, 1)
    try:
        report = sasa_report(model, items, roles=roles, quick=True, random_state=seed)
    except (DataError, ModelError, UsageError) as error:  # too few groups, or a family without a state to project
        tell("SASA", 1, 1)
        return {"done": False, "reason": str(error)}, None
    tell("SASA", 1, 1)
    return {"done": True, **report.to_dict()}, report


TRAINING, ASKED, LONGEST = 80, 40, 12
"""Samples to fit on, requests to answer, tokens of an answer: a first look; ``lvlm-lens evaluate`` is the real one."""


def table_stage(
    model: LVLM, data: Dataset, report: SASAReport | None, usable: set[str], seed: int, tell: Tell
) -> tuple[dict[str, Any], EvaluationResult | None]:
    """A small defence table: a safety prompt, a probe on the first token, and SASA's guard where it was measured."""
    defenses: list[Defense] = [SafetyPrompt(), FirstTokenProbe()]
    if report is not None:
        blocks = {f"{name}_block": report.setting[f"{name}_block"] for name in ("safety", "fused")}
        defenses.append(SASA(**blocks))
    tell("defences", 0, 1)
    try:
        result = evaluate(
            model,
            _labelled(data, usable),
            defenses,
            limit=ASKED,
            train_limit=TRAINING,
            max_new_tokens=LONGEST,
            random_state=seed,
        )
    except (DataError, ModelError, UsageError) as error:  # one class, few groups, no state
        return {"done": False, "reason": str(error)}, None
    finally:
        tell("defences", 1, 1)
    return {"done": True, **result.to_dict()}, result


def _labelled(data: Dataset, usable: set[str]) -> Dataset:
    def keep(sample: Sample) -> bool:
        return sample.id in usable and sample.harmful is not None

    return data.filter(keep)
