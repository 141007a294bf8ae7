"""One constructed model, built, read and measured as a sweep does it; what came out, beside what is true."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..config import SweepConfig
from ..lens import LVLM
from ..locate.asking import ask_measures, read_role
from ..locate.locating import Located, locate_roles
from ..locate.roles import Role, find_role
from ..measures.evidence import Evidence, gather
from ..measures.linear_probe import LinearProbe
from ..measures.registry import MEASURES
from ..measures.study import Study
from ..measures.unembedding import Unembedding, twin_lens
from .constructed import build
from .items import draw_items
from .plan import Plan
from .truths import asks, truth_of

TESTED: tuple[str, ...] = tuple(name for name, spec in MEASURES.items() if spec.planted)
"""The registered measures that find something planted."""


@dataclass(frozen=True)
class Outcome:
    """One measure on one model at one sample size.

    Attributes:
        measure; pairs: number of pairs.
        truth: the true block, ``None`` where absent.
        found, onset, low, high: as the role says; blocks, ``None`` where not found.
        reason: why it could not be measured at all; it then counts as not found.
    """

    measure: str
    pairs: int
    truth: int | None
    found: bool
    onset: int | None = None
    low: int | None = None
    high: int | None = None
    reason: str = ""


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
    """What one model gave; ``seconds`` by part, ``all`` of them together."""

    plan: Plan
    outcomes: tuple[Outcome, ...]
    ordered: tuple[Ordered, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {
            "plan": self.plan.to_dict(),
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
            "ordered": [asdict(row) for row in self.ordered],
            "seconds": dict(self.seconds),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trial:
        """Inverse of :meth:`to_dict`."""
        outcomes = tuple(Outcome(**row) for row in data["outcomes"])
        return cls(Plan(**data["plan"]), outcomes, tuple(Ordered(**row) for row in data["ordered"]), data["seconds"])


@dataclass(frozen=True)
class Readings:
    """A constructed model, its evidence and its twin's, and the twin's head."""

    plan: Plan
    model: LVLM
    evidence: Evidence
    twin: Evidence
    twin_lens: Unembedding | None

    def first(self, pairs: int) -> Readings:
        """The same for the first pairs."""
        rows = np.arange(2 * pairs)
        return Readings(self.plan, self.model, self.evidence.rows(rows), self.twin.rows(rows), self.twin_lens)


def read(plan: Plan, pairs: int) -> Readings:
    """Build the model and its random-weight twin and run both over the items."""
    items = draw_items(plan, pairs)
    model = build(plan)
    evidence = gather(model, items, batch_size=100)
    with model.random_twin(plan.seed) as twin:
        other, head_of_twin = gather(twin, items, batch_size=100), twin_lens(twin)
    return Readings(plan, model, evidence, other, head_of_twin)


def run_trial(plan: Plan, pairs: Sequence[int], measures: Sequence[str] = TESTED) -> Trial:
    """Build, read, locate, ask the registered measures with a sweep's own settings, and compare.

    Args:
        plan: the model.
        pairs: sample sizes; the smaller ones are the first pairs of the largest.
        measures: names; those of the three roles come from the locating anyway and are asked at every size, the
            others at the largest.
    """
    clock = _Clock()
    whole = read(plan, max(pairs))
    clock.stop("reading")
    outcomes: list[Outcome] = []
    ordered: list[Ordered] = []
    for size in pairs:
        part = whole.first(size)
        located = locate(part)
        clock.stop("locating")
        if plan.gap is not None:
            order = located.order_test
            ordered.append(Ordered(size, plan.gap, order.get("earlier"), bool(order.get("told", False))))
        study = make_study(part, located)
        for name in measures:
            if size == max(pairs) or MEASURES[name].cost == "free":
                outcomes += _ask(name, study, plan, size)
                clock.stop(name)
    return Trial(plan, tuple(outcomes), tuple(ordered), clock.seconds())


def sweep_settings() -> dict[str, Any]:
    """What a sweep's measures are computed with by default."""
    settings = SweepConfig()
    return {"folds": settings.folds, "permutations": settings.permutations, "replicates": settings.replicates}


def locate(part: Readings) -> Located:
    """The roles of a constructed model, as a sweep locates them by default."""
    probe = LinearProbe(**sweep_settings())
    return locate_roles(part.evidence, part.twin, probe=probe, seed=part.plan.seed)


def make_study(part: Readings, located: Located) -> Study:
    """A study of a constructed model, with the settings that a sweep has by default."""
    return Study(part.model, part.evidence, located, part.twin, part.twin_lens, seed=part.plan.seed, **sweep_settings())


def _ask(name: str, study: Study, plan: Plan, pairs: int) -> Iterator[Outcome]:
    """Outcomes of a measure and of those of its other curves that are held against the same."""
    spec = MEASURES[name]
    if not asks(spec.planted, plan):
        return
    measured, reasons = ask_measures(study, [name])
    truth = truth_of(spec.planted, plan)
    if name in reasons:
        for key in (name, *spec.variants):
            yield Outcome(key, pairs, truth, False, reason=reasons[name])
        return
    found = measured[name]
    for key in (name, *spec.variants):
        curve = found.curve if key == name else found.others[key]
        role = find_role(key, curve, ()) if spec.role is None else read_role(spec, curve, study)
        yield _outcome(key, pairs, truth, role)


def _outcome(measure: str, pairs: int, truth: int | None, role: Role) -> Outcome:
    return Outcome(measure, pairs, truth, role.found, role.onset, role.onset_low, role.onset_high)


class _Clock:
    """Processor seconds by part."""

    def __init__(self) -> None:
        self._parts: dict[str, float] = {}
        self._last = time.process_time()

    def stop(self, part: str) -> None:
        """Everything since the last stop belongs to ``part``."""
        now = time.process_time()
        self._parts[part] = self._parts.get(part, 0.0) + now - self._last
        self._last = now

    def seconds(self) -> dict[str, float]:
        """By part, and ``all``."""
        return {**{part: round(value, 3) for part, value in self._parts.items()}, "all": sum(self._parts.values())}


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
