"""Many constructed models, tabulated: does each measure return the truth as often as it says?

Models of all kinds (:data:`~.plan.KINDS`) come by turns; a quarter of the models with all three roles have a gap of
exactly two blocks, for the power of the order test.  For each measure and sample size, with Wilson 95 % intervals:

* *within one block*: share of models that have what is measured in which it is found, and its onset is at most one
  block off; a model in which it is not found counts as a failure;
* *inside*: share of the found ones whose interval holds the true block, and the mean *width* of that interval, in
  blocks beyond the first;
* *error*: mean distance of onset and truth of the found ones, blocks;
* *false alarms*: share of the models that do not have it in which it is found.

For the order test: *level*, the share of models in which perception is not earlier than semantics and the test says
it is (a test that was not made says nothing), and *power*, the same share where semantics comes
exactly two blocks later.

Targets are held against the largest sample size, by the share itself and not by its interval: within one block in 95 %;
inside in 90 to 98 %, or above 98 % where the interval is on average less than half a block wider than a single
block and so cannot be narrowed; false alarms and level at most 5 %; power at least 90 %.  A target that no model could
test is ``None``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..inference import share
from ..measures.registry import MEASURES
from ..provenance import code_hash
from ..storage.pieces import Pieces
from ..storage.runfolder import RunFolder
from .plan import Plan, draw_plan
from .settings import StudySettings
from .trial import TESTED, Ordered, Outcome, Trial, error, inside, mean, run_trial, sweep_settings, width

TURNS: tuple[tuple[str, int | None], ...] = (
    ("all", 2), ("tied", None), ("nothing", None), ("all", None), ("no_semantics", None), ("reversed", None),
    ("no_expression", None), ("all", 2), ("nothing", None), ("tied", None),
)  # fmt: skip
"""Kinds of ten models, with the gap where it is fixed."""

CERTIFIED = ("activations", "causal", "interventions", "locate", "measures", "models", "selftest", "stats")
"""Rooms whose code a study's marks speak of: trials of other code are not continued."""


@dataclass(frozen=True)
class SelfTest(StudySettings):
    """A study of constructed models, trial by trial; trials are independent, so they can be spread and resumed.

    Attributes:
        measures: names, those that find something planted (:data:`~.trial.TESTED`).
    """

    measures: tuple[str, ...] = TESTED

    def claim(self) -> None:
        """Make the folder this study's own; call it once before trials are run.

        Raises :class:`RunFolderError` where it belongs to another study, with the difference.
        """
        if self.folder is not None:
            settings = {
                "pairs": list(self.pairs),
                "seed": self.seed,
                "measures": list(self.measures),
                "code": code_hash(*CERTIFIED),
                **sweep_settings(),
            }
            RunFolder(self.folder).claim({"what": "selftest", "settings": settings})

    def plan(self, number: int) -> Plan:
        """The plan of one model: its seed is ``1000 * seed + number``."""
        kind, gap = TURNS[number % len(TURNS)]
        return draw_plan(1000 * self.seed + number, kind, gap)

    @property
    def _pieces(self) -> Pieces:
        return Pieces(None if self.folder is None else self.folder / "trials")

    def finished(self) -> set[int]:
        """Numbers of the trials whose files are there."""
        return {int(name) for name in self._pieces.names()} & set(range(self.models))

    def trial(self, number: int) -> Trial:
        """One model: read from its file, or run and kept.  Any process may run any number."""

        def make() -> tuple[dict[str, Any], dict[str, Any]]:
            return {}, run_trial(self.plan(number), self.pairs, self.measures).to_dict()

        return Trial.from_dict(self._pieces.made(f"{number:04d}", make).facts)

    def result(self, trials: Sequence[Trial]) -> dict[str, Any]:
        """The table of all trials, JSON-ready: ``measures`` (rows), ``order_test`` (rows), ``standing`` by measure,
        ``untested`` (reason by measure), settings, and every trial."""
        return {
            "models": len(trials), "pairs": list(self.pairs), "seed": self.seed, **sweep_settings(),
            "seconds": sum(trial.seconds["all"] for trial in trials), **tabulate(trials, self.pairs),
            "untested": untested(self.measures), "trials": [trial.to_dict() for trial in trials],
        }  # fmt: skip


def run_study(
    models: int = StudySettings.models,
    pairs: Sequence[int] = StudySettings.pairs,
    seed: int = StudySettings.seed,
    folder: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Run a whole :class:`SelfTest`, one trial after the other.

    Args:
        models, pairs, seed, folder: see :class:`~.settings.StudySettings`.
        progress: called with ("models", done, all).
    """
    study = SelfTest(models, tuple(pairs), seed, folder)
    study.claim()
    trials = []
    if progress is not None:
        progress("models", 0, models)
    for number in range(models):
        trials.append(study.trial(number))
        if progress is not None:
            progress("models", number + 1, models)
    return study.result(trials)


def untested(measures: Sequence[str] = TESTED) -> dict[str, str]:
    """Why models whose answer is known say nothing of the other registered measures, by name."""
    said = {name: spec.untested or "its package does not say what it should find" for name, spec in MEASURES.items()}
    return {name: "not asked" if MEASURES[name].planted else why for name, why in said.items() if name not in measures}


def tabulate(trials: Sequence[Trial], sizes: Sequence[int]) -> dict[str, Any]:
    """Rows by measure and sample size, rows of the order test, standing by measure."""
    outcomes = [outcome for trial in trials for outcome in trial.outcomes]
    names = list(dict.fromkeys(outcome.measure for outcome in outcomes))
    rows = []
    for name in names:
        for size in sizes:
            own = [outcome for outcome in outcomes if outcome.measure == name and outcome.pairs == size]
            if own:
                rows.append(_measure_row(name, size, own))
    ordered = [row for trial in trials for row in trial.ordered]
    order = [_order_row(size, [row for row in ordered if row.pairs == size]) for size in sizes]
    largest = max(sizes)
    standing = {row["measure"]: _standing(row["targets"]) for row in rows if row["pairs"] == largest}
    standing["order_test"] = _standing(order[-1]["targets"])
    return {"measures": rows, "order_test": order, "standing": standing}


def _measure_row(name: str, size: int, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    present = [outcome for outcome in outcomes if outcome.truth is not None]
    found = [outcome for outcome in present if outcome.found]
    absent = [outcome for outcome in outcomes if outcome.truth is None]
    close = share(sum(error(outcome) <= 1 for outcome in found), len(present))
    covered = share(sum(inside(outcome) for outcome in found), len(found))
    alarms = share(sum(outcome.found for outcome in absent), len(absent))
    wide = mean([width(outcome) for outcome in found])
    return {
        "measure": name,
        "pairs": size,
        "found": share(len(found), len(present)),
        "within_one_block": close,
        "inside": covered,
        "width": wide,
        "error": mean([error(outcome) for outcome in found]),
        "false_alarms": alarms,
        "targets": {
            "within_one_block": _at_least(close["value"], 0.95),
            "inside": _covers(covered["value"], wide),
            "false_alarms": _at_most(alarms["value"], 0.05),
        },
    }


def _order_row(size: int, rows: Sequence[Ordered]) -> dict[str, Any]:
    def rejected(chosen: Sequence[Ordered]) -> dict[str, Any]:
        return share(sum(row.earlier == "perception" for row in chosen), len(chosen))

    level = rejected([row for row in rows if row.gap <= 0])
    power = rejected([row for row in rows if row.gap == 2])
    wider = rejected([row for row in rows if row.gap > 2])
    return {
        "pairs": size,
        "level": level,
        "power_gap_2": power,
        "power_wider_gap": wider,
        "targets": {"level": _at_most(level["value"], 0.05), "power_gap_2": _at_least(power["value"], 0.9)},
    }


def _at_least(value: float | None, bound: float) -> bool | None:
    return None if value is None else value >= bound


def _at_most(value: float | None, bound: float) -> bool | None:
    return None if value is None else value <= bound


def _covers(value: float | None, wide: float | None) -> bool | None:
    if value is None or wide is None:
        return None
    return value >= 0.9 and (value <= 0.98 or wide < 0.5)


def _standing(targets: dict[str, bool | None]) -> str:
    if any(reached is False for reached in targets.values()):
        return "missed"
    return "reached" if all(targets.values()) else "untested"


def table(result: dict[str, Any]) -> str:
    """The study in words, one line per measure and sample size."""

    def percent(value: dict[str, Any]) -> str:
        if value["value"] is None:
            return "-"
        return f"{100 * value['value']:.0f} [{100 * value['low']:.0f}, {100 * value['high']:.0f}] of {value['n']}"

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    def reached(targets: dict[str, bool | None]) -> str:
        missed = [key.replace("_", " ") for key, good in targets.items() if good is False]
        if missed:
            return "MISSED: " + ", ".join(missed)
        return "reached" if all(targets.values()) else "not all tested"

    head = f"{'measure':23s} {'pairs':>5s}  {'within 1 block, %':20s} {'truth inside, %':20s} "
    lines = [
        f"{result['models']} models whose answer is known, seed {result['seed']}, {result['seconds']:.0f} s; targets: "
        "within one block in 95 %, truth inside in 90 to 98 %, false alarms at most 5 %",
        "",
        head + f"{'width':>5s} {'error':>5s}  {'false alarms, %':20s} targets",
    ]
    for row in result["measures"]:
        lines.append(
            f"{row['measure']:23s} {row['pairs']:5d}  {percent(row['within_one_block']):20s} "
            f"{percent(row['inside']):20s} {number(row['width']):>5s} {number(row['error']):>5s}  "
            f"{percent(row['false_alarms']):20s} {reached(row['targets'])}"
        )
    lines += ["", "Order test, perception before semantics: level at most 5 %, power for two blocks at least 90 %"]
    for row in result["order_test"]:
        lines.append(
            f"{row['pairs']:4d} pairs  level {percent(row['level'])}   power, gap of 2 {percent(row['power_gap_2'])}   "
            f"wider gap {percent(row['power_wider_gap'])}   {reached(row['targets'])}"
        )
    if result["untested"]:
        lines += ["", "Not testable with these models:"]
        lines += [f"{name:23s} {why}" for name, why in result["untested"].items()]
    return "\n".join(lines)
