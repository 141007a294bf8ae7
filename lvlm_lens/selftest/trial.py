"""One constructed model, built, run and located as a user would do it; what came out, beside what is true."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ..locate.locating import locate_roles
from ..locate.roles import Role, find_role
from ..measures.evidence import gather
from ..measures.linear_probe import LinearProbe
from ..measures.unembedding import unembedding_of
from ..stats.curve import Curve
from .constructed import build
from .items import draw_items
from .measures import Readings, other_curves, truths
from .names import ROLE_MEASURES
from .plan import Plan


@dataclass(frozen=True)
class Outcome:
    """One measure on one model at one sample size.

    Attributes:
        measure; pairs: number of pairs.
        truth: the true block, ``None`` where absent.
        found, onset, low, high: as the role says; blocks, ``None`` where not found.
    """

    measure: str
    pairs: int
    truth: int | None
    found: bool
    onset: int | None = None
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True)
class Ordered:
    """The order test on one model at one sample size.

    Attributes:
        pairs; gap: true blocks; earlier: ``perception``, ``semantics`` or ``None``.
        told: False where it could not tell.
    """

    pairs: int
    gap: int
    earlier: str | None
    told: bool


@dataclass(frozen=True)
class Trial:
    """What one model gave."""

    plan: Plan
    outcomes: tuple[Outcome, ...]
    ordered: tuple[Ordered, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {
            "plan": self.plan.to_dict(),
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
            "ordered": [asdict(row) for row in self.ordered],
            "seconds": self.seconds,
        }


@torch.inference_mode()
def read(plan: Plan, pairs: int) -> Readings:
    """Build the model and its random-weight twin and run both over the items."""
    items = draw_items(plan, pairs)
    model = build(plan)
    evidence = gather(model, items, batch_size=100)
    with model.random_twin(plan.seed) as twin:
        other, head_of_twin = gather(twin, items, batch_size=100), unembedding_of(twin, keep=True)
    return Readings(plan, evidence, other, unembedding_of(model), head_of_twin)


def run_trial(
    plan: Plan, pairs: Sequence[int], replicates: int = 500, permutations: int = 50, others: bool = True
) -> Trial:
    """Build, run, locate and compare.

    Args:
        plan: the model.
        pairs: sample sizes; the smaller ones are the first pairs of the largest.
        replicates, permutations: of intervals and nulls.
        others: whether the measures beside those of the three roles are asked too, at the largest sample size.
    """
    begin = time.perf_counter()
    whole = read(plan, max(pairs))
    known = truths(plan)
    outcomes: list[Outcome] = []
    ordered: list[Ordered] = []
    probe = LinearProbe(replicates=replicates, permutations=permutations)
    for size in pairs:
        part = whole.first(size)
        located = locate_roles(part.evidence, part.twin, probe=probe, seed=plan.seed)
        for measure, role in ROLE_MEASURES.items():
            outcomes.append(_outcome(measure, size, known[measure], located.roles[role]))
        if plan.gap is not None:
            order = located.order_test
            ordered.append(Ordered(size, plan.gap, order.get("earlier"), bool(order.get("told", False))))
        asked = others and size == max(pairs)
        for name, curve in other_curves(part, replicates, permutations, plan.seed) if asked else ():
            outcomes.append(_outcome(name, size, known[name], _role(name, curve)))
    return Trial(plan, tuple(outcomes), tuple(ordered), time.perf_counter() - begin)


def _role(name: str, curve: Curve) -> Role:
    return find_role(name, curve, ())


def _outcome(measure: str, pairs: int, truth: int | None, role: Role) -> Outcome:
    return Outcome(measure, pairs, truth, role.found, role.onset, role.onset_low, role.onset_high)


def error(outcome: Outcome) -> float:
    """Distance of onset and truth in blocks; NaN where one is missing."""
    return float("nan") if outcome.truth is None or outcome.onset is None else float(abs(outcome.onset - outcome.truth))


def inside(outcome: Outcome) -> bool:
    """Whether the interval holds the truth."""
    if outcome.truth is None or outcome.low is None or outcome.high is None:
        return False
    return outcome.low <= outcome.truth <= outcome.high


def width(outcome: Outcome) -> float:
    """Length of the interval in blocks, 0 for a single block; NaN where there is none."""
    return float("nan") if outcome.low is None or outcome.high is None else float(outcome.high - outcome.low)


def mean(values: Sequence[float]) -> float | None:
    """Mean of the numbers that are there, ``None`` where there is none."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None
