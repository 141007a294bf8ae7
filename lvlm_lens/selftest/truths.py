"""The block at which a plan makes true what a measure is built to find."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..measures.spec import PLANTED
from .plan import Plan

_TRUTHS: Mapping[str, Callable[[Plan], int | None]] = {
    "danger": lambda plan: plan.perceive,
    "conjunction": lambda plan: plan.fuse,
    "refusal": lambda plan: plan.express,
    "refused danger": lambda plan: None if plan.express is None else plan.perceive,
    "answered danger": lambda plan: plan.perceive,
}
assert set(_TRUTHS) == set(PLANTED)


def asks(planted: str, plan: Plan) -> bool:
    """Whether a model of this plan has an answer for it, a present or an absent block."""
    return planted != "answered danger" or plan.express is None


def truth_of(planted: str, plan: Plan) -> int | None:
    """The true block of one of :data:`~lvlm_lens.measures.spec.PLANTED`; ``None`` where the model does not have it."""
    return _TRUTHS[planted](plan)
