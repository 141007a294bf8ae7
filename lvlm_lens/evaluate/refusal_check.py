"""How good are the refusal scorers? Measured on answers that people have scored.

The file is a CSV with an answer column and a human score (1 refusal, 0 not), such as PyRIT's ``refusal.csv``; lines
before the header that start with ``#`` are passed over.  There an answer to another question is scored 1, which no
scorer can see in the answer alone: where the file has the questions, the three-way scorer is measured too, its refusals
and deflections together against the people's 1, and :func:`reaction_confusion` says how many were which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..data.reading import read_csv
from ..errors import DataError
from .rates import Rate, rate
from .reaction import ReactionScorer, confusion
from .refusal import all_rules

THREE_WAY = "lens, three-way"
"""Name of the scorer that also sees the question."""


class Scored(NamedTuple):
    """An answer, whether people scored it as a refusal, and the question (``""`` where the file has none)."""

    answer: str
    refused: bool
    question: str


@dataclass(frozen=True)
class ScorerCheck:
    """One scorer against people: accuracy, misses (of refusals), false alarms (of the others), with intervals."""

    scorer: str
    accuracy: Rate
    misses: Rate
    false_alarms: Rate
    missed: tuple[str, ...]
    alarmed: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """Plain values for a table or JSON."""
        cells: dict[str, Any] = {"scorer": self.scorer}
        for name, found in (("accuracy", self.accuracy), ("misses", self.misses), ("false_alarms", self.false_alarms)):
            cells |= {
                name: found.value,
                f"{name}_low": found.low,
                f"{name}_high": found.high,
                f"{name}_of": found.total,
            }
        return cells


def read_scored(
    file: Path | str, answer: str = "assistant_response", score: str = "human_score", question: str = "objective"
) -> list[Scored]:
    """Every row; raises naming line and field for a row that cannot be read."""
    rows: list[Scored] = []
    for place, row in read_csv(Path(file), comments=True):
        if not isinstance(row, Mapping):
            raise DataError(f"{file}, {place}: {row.reason}")
        missing = [name for name in (answer, score) if name not in row]
        if missing:
            raise DataError(f"{file}: no column {missing[0]!r}; its columns are {', '.join(row)}")
        said = str(row[score]).strip().casefold()
        if said not in ("0", "1", "0.0", "1.0", "true", "false"):
            raise DataError(f"{file}, {place}: {score} is {row[score]!r}; it must be 0 or 1")
        rows.append(Scored(row[answer] or "", said in ("1", "1.0", "true"), row.get(question) or ""))
    if not rows:
        raise DataError(f"{file}: no scored answers")
    return rows


def score_refusal_scorers(
    file: Path | str, scorers: Mapping[str, Callable[[str], bool]] | None = None
) -> list[ScorerCheck]:
    """Each scorer (all of ours, or those given by name) against the human scores of ``file``, best accuracy first."""
    rows = read_scored(file)
    told = {}
    for name, scorer in (scorers if scorers is not None else {rule.name: rule for rule in all_rules()}).items():
        told[name] = [bool(scorer(row.answer)) for row in rows]
    if scorers is None and any(row.question for row in rows):
        told[THREE_WAY] = [found.name in ("refusal", "deflection") for found in _react(rows)]
    checks = []
    for name, said in told.items():
        right = [found == row.refused for found, row in zip(said, rows, strict=True)]
        refused = [(found, row.answer) for found, row in zip(said, rows, strict=True) if row.refused]
        others = [(found, row.answer) for found, row in zip(said, rows, strict=True) if not row.refused]
        checks.append(
            ScorerCheck(
                name,
                rate(right, "accuracy"),
                rate([not found for found, _ in refused], "misses"),
                rate([found for found, _ in others], "false alarms"),
                tuple(answer for found, answer in refused if not found),
                tuple(answer for found, answer in others if found),
            )
        )
    return sorted(checks, key=lambda check: -check.accuracy.value)


def check_table(checks: list[ScorerCheck]) -> Any:
    """A pandas frame, one row a scorer."""
    import pandas

    return pandas.DataFrame([check.row() for check in checks])


def _react(rows: list[Scored]) -> list[Any]:
    scorer = ReactionScorer()
    return [scorer(row.answer, row.question) for row in rows]


def reaction_confusion(file: Path | str) -> dict[str, dict[str, int]]:
    """Counts of the three-way scorer's reactions by the people's score: rows ``refused`` and ``not refused``."""
    rows = read_scored(file)
    return confusion(["refused" if row.refused else "not refused" for row in rows], _react(rows))
