"""Answers made in batches, stored one line per sample, and resumed where a run stopped.

The ledger is a JSON-lines file: a head that says what it belongs to, then a line for every answer.  Lines are
appended and flushed batch by batch, so a killed run loses one batch at most; a torn last line is cut
off.  A sample that cannot be answered is a line with its error: counted, never lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..data import Sample
from ..errors import DataError, ImageLostError, NumericalError, RunFolderError
from ..progress import each
from ..storage.commit import append_line, write_atomic
from ..storage.identity import require


class Answering(Protocol):
    """A model or a guarded model."""

    def generate(self, samples: Sequence[Sample], max_new_tokens: int = 32, batch_size: int = 32) -> list[str]:
        """One answer a sample, in order."""


@dataclass
class Answer:
    """One answer and what it cost.

    Attributes:
        id: of the sample; text: the answer, or ``""`` with an error.
        error: why there is no answer, or ``""``.
        flagged: whether a detector refused the prompt; ``None`` where there is none.
        cost: measured, per query (forwards, tokens, pictures, seconds), shared evenly in a batch.
    """

    id: str
    text: str
    error: str = ""
    flagged: bool | None = None
    cost: Mapping[str, float] = field(default_factory=dict)


_OF_A_SAMPLE = (DataError, ImageLostError, NumericalError)
"""Errors that one request can cause; the others are the system's and end the run."""


class AnswerLedger:
    """The answers of one system on one data set, on disk or in memory.

    Args:
        path: the file; ``None`` keeps answers in memory.
        head: what the answers belong to (model, defence, settings); another head on disk is an error.
    """

    def __init__(self, path: Path | None, head: Mapping[str, Any]) -> None:
        self.path = path
        self.head = json.loads(json.dumps(dict(head), sort_keys=True, default=str))
        self.answers: dict[str, Answer] = {}
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._read(path)

    def _read(self, path: Path) -> None:
        if not path.exists() or not path.stat().st_size:
            write_atomic(path, json.dumps({"head": self.head}) + "\n")
            return
        raw = path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]  # a torn last line was never finished
        try:
            lines = [json.loads(line) for line in whole.decode("utf-8").splitlines()]
            found = lines[0]["head"]
            rows = [Answer(**row) for row in lines[1:]]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise RunFolderError(f"{path.name} is not a ledger of answers ({error}); choose another folder") from error
        require(path.name, found, self.head, "run", "give another folder")
        if len(whole) != len(raw):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        self.answers = {row.id: row for row in rows}

    def add(self, rows: Sequence[Answer]) -> None:
        """Keep answers; on disk they are there when this returns."""
        self.answers.update({row.id: row for row in rows})
        if self.path is None or not rows:
            return
        append_line(self.path, "".join(json.dumps(asdict(row)) + "\n" for row in rows))


def collect_answers(
    system: Answering,
    samples: Sequence[Sample],
    ledger: AnswerLedger,
    max_new_tokens: int = 32,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """Answers to all samples, those already in the ledger not asked again.

    Args:
        system: a model or guarded model; its ``cost`` and ``flagged`` are recorded where it has them.
        samples: in the order in which answers are returned.
        ledger: where they are kept.
        max_new_tokens: longest answer.
        batch_size: samples asked together; also what a killed run can lose.
        progress: called with (answered, in all).
    """
    left = [sample for sample in samples if sample.id not in ledger.answers]
    left.sort(key=lambda sample: (len(sample.images), len(sample.text)))
    for start in each(range(0, len(left), batch_size)):
        batch = left[start : start + batch_size]
        try:
            rows = _asked(system, batch, max_new_tokens, batch_size)
        except _OF_A_SAMPLE:
            rows = []
            for sample in batch:  # one of them cannot be read: find it, keep the others
                try:
                    rows += _asked(system, [sample], max_new_tokens, batch_size)
                except _OF_A_SAMPLE as error:
                    rows.append(Answer(sample.id, "", str(error)))
        ledger.add(rows)
        if progress is not None:
            progress(len(ledger.answers), len(samples))
    return [ledger.answers[sample.id] for sample in samples]


def _asked(system: Answering, batch: Sequence[Sample], max_new_tokens: int, batch_size: int) -> list[Answer]:
    spent = getattr(system, "cost", None)
    before = asdict(spent) if spent is not None else {}
    texts = system.generate(batch, max_new_tokens=max_new_tokens, batch_size=batch_size)
    after = asdict(spent) if spent is not None else {}
    share = {k: (after[k] - before[k]) / len(batch) for k in after if k != "queries"}
    flags: Mapping[str, bool] = getattr(system, "flagged", {})
    return [Answer(s.id, text, "", flags.get(s.id), share) for s, text in zip(batch, texts, strict=True)]
