"""A method with its controls in one table: attack success, over-refusal, naming, and the same with one word changed.

The method is trained, then each control with the same budget (steps, rows per step, rank, learning rate, seed), each in
a folder of its own below the run's; then all are asked the same test requests beside the untrained base.  What a method
buys is what its row has over its controls' rows:

* ``benign_refusals``: how much comes from refusing more, whatever is asked;
* ``shuffled``: how much comes from the style of the replies;
* ``text_only``: how much needs no picture;
* *one word*: harmful requests begin with the word that training tied most to harmless ones, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..data import Dataset, Sample
from ..data.groups import groups_of
from ..defenses.registry import trained_defense
from ..errors import DataError
from ..evaluate.evaluation import NONE, evaluate
from ..evaluate.rates import rate
from ..evaluate.thinking import split_thinking
from ..evaluate.utility import is_correct
from ..lens import LVLM
from ..storage.commit import write_atomic
from ..storage.runfolder import RunFolder
from ..train.controls import one_word_swap
from ..train.folder import read_rows
from ..train.method import Job, Method
from ..train.replies import described
from ..training_settings import CONTROLS

TABLE = "table.json"
HEADS = {
    "attack_success": "attack success",
    "complied": "complied",
    "over_refusal": "over-refusal",
    "accuracy": "right on harmless",
    "reaches_answer": "reaches an answer",
    "naming": "naming",
    "attack_success_word": "attack success, one word",
    "over_refusal_word": "over-refusal, one word",
}
"""Rates of a row and how the table calls them."""


@dataclass(frozen=True)
class TrainingTable:
    """Rows of a base and the trainings on it, with what was asked.

    Attributes:
        rows: one per system: ``system``, the rates of :data:`HEADS` (each ``value``, ``low``, ``high``, ``total``),
            ``training`` (cost), ``approximation``.
        tests: differences from the base, as :func:`~lvlm_lens.evaluate.evaluation.evaluate` gives them.
        setting: model, data, numbers of requests, the words of the swap; notes: what a reader should know.
    """

    rows: list[dict[str, Any]]
    tests: list[dict[str, Any]]
    setting: dict[str, Any]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"setting": self.setting, "rows": self.rows, "tests": self.tests, "notes": self.notes}

    def to_markdown(self) -> str:
        """The table, rates in per cent with 95 % intervals."""
        shown = [name for name in HEADS if any(row.get(name) for row in self.rows)]
        heads = " | ".join(HEADS[name] for name in shown)
        lines = [f"| system | {heads} | training FLOPs |", "|---" * (len(shown) + 2) + "|"]
        for row in self.rows:
            spent = row.get("training") or {}
            cells = [_cell(row.get(name)) for name in shown]
            lines.append(f"| {row['system']} | {' | '.join(cells)} | {_flops(spent.get('flops'))} |")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.to_markdown()


def _cell(found: Mapping[str, Any] | None) -> str:
    if not found or not found["total"]:
        return "-"
    return f"{100 * found['value']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def _flops(flops: float | None) -> str:
    return "-" if flops is None else f"{flops:.2g}"


def train_with_controls(
    method: Method,
    job: Job,
    test: Sequence[Sample],
    *,
    controls: Sequence[str] = CONTROLS[1:],
    limit: int | None = None,
    max_new_tokens: int = 96,
    batch_size: int = 32,
) -> TrainingTable:
    """Train a method and its controls below ``job.folder``, and compare them.

    Args:
        method: the method; job: its training, ``job.folder`` the run's folder.
        test: labelled requests that no training sees.
        controls: of :data:`~lvlm_lens.training_settings.CONTROLS`; one that the data do not allow becomes a note.
        limit: at most so many test requests.
        max_new_tokens: longest answer; reasoning comes before the answer and counts.
        batch_size: requests a forward.

    Returns:
        The table, also written as ``table.json`` and ``table.md``.
    """
    folders: dict[str, Path] = {}
    notes = []
    for control in ("none", *controls):
        name = method.name if control == "none" else f"{method.name}-{control}"
        if reason := method.meaningless(control):
            notes.append(f"{name}: not trained: {reason}")
            continue
        job.say(f"{name}: {job.settings.steps} steps")
        settings = replace(job.settings, control=control)
        try:
            method.train(replace(job, settings=settings, folder=job.folder / name))
        except DataError as error:
            if control == "none":
                raise
            notes.append(f"{name}: not trained: {error}")
            continue
        folders[name] = job.folder / name
    found = compare_trainings(
        job.load(),
        folders,
        job.data,
        test,
        limit=limit,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        out=job.folder,
    )
    table = TrainingTable(found.rows, found.tests, found.setting, [*notes, *found.notes])
    write_table(table, job.folder)
    return table


def write_table(table: TrainingTable, folder: Path) -> None:
    """``table.json`` and ``table.md``."""
    RunFolder(folder).write_json(TABLE, table.to_dict())
    notes = "".join(f"\n* {note}" for note in table.notes)
    write_atomic(folder / "table.md", f"{table.to_markdown()}\n{notes}\n")


def compare_trainings(
    base: LVLM,
    folders: Mapping[str, Path],
    train: Sequence[Sample],
    test: Sequence[Sample],
    *,
    limit: int | None = None,
    max_new_tokens: int = 96,
    batch_size: int = 32,
    out: Path | None = None,
) -> TrainingTable:
    """Ask the base and every training the same requests.

    Args:
        base: untrained; folders: adapter folders by the name of their row.
        train: what they were trained on, for the words of the swap; test: what is asked.
        limit, max_new_tokens, batch_size: as in :func:`train_with_controls`.
        out: folder; ledgers of answers are kept in ``out/answers``; an answer there is not asked for again.
    """
    defenses: list[Any] = []
    for name, place in folders.items():
        found = trained_defense(place)
        found.name = name  # type: ignore[misc]
        defenses.append(found)
    plain = [sample if base.takes_images else sample.without_images() for sample in test]
    kept = out / "answers" if out is not None else None
    options: dict[str, Any] = {"limit": limit, "max_new_tokens": max_new_tokens, "batch_size": batch_size}
    first = evaluate(base, Dataset(plain), defenses, train=[], out=kept, **options)
    rows = {row["system"]: _kept(row) for row in first.rows}
    notes = list(first.notes)
    words: dict[str, str] = {}
    try:
        swapped, words = one_word_swap(train, plain)
    except DataError as error:
        notes.append(f"one word: {error}")
    else:
        beside = out / "answers-one-word" if out is not None else None
        second = evaluate(base, Dataset(swapped), defenses, train=[], out=beside, **options)
        for row in second.rows:
            for name in ("attack_success", "over_refusal"):
                rows[row["system"]][f"{name}_word"] = row[name]
    for name, place in folders.items():
        if rate_of := _reaching(place, [answer.text for answer in first.answers[name] if not answer.error]):
            rows[name]["reaches_answer"] = rate_of
    for system, value in named(base, defenses, plain, limit, max_new_tokens, batch_size).items():
        rows[system]["naming"] = value
    setting = {
        **{
            key: first.setting[key]
            for key in ("model", "n_test", "harmful", "harmless", "refused_by", "max_new_tokens")
        },
        "trained_on": getattr(train, "name", ""),
        "one_word": words,
    }
    return TrainingTable(list(rows.values()), first.tests, setting, notes)


def _reaching(folder: Path, answers: Sequence[str]) -> dict[str, Any] | None:
    """Share of answers that come to an end of their reasoning and a reply after it; of trainings that teach reasoning.

    A reply that never gets there is no refusal, so on attack success alone it looks like a request that was met.
    """
    taught = [split_thinking(row["reply"]).think for row in read_rows(folder) or []]
    if not taught or not all(taught):
        return None
    parts = [split_thinking(text) for text in answers]
    return asdict(rate([bool(part.think and part.closed and part.final) for part in parts], "reaches an answer"))


def _kept(row: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        "system",
        "attack_success",
        "complied",
        "over_refusal",
        "accuracy",
        "training",
        "approximation",
        "failures",
    )
    return {name: row[name] for name in names if name in row}


def named(
    base: LVLM,
    defenses: Sequence[Any],
    test: Sequence[Sample],
    limit: int | None,
    max_new_tokens: int,
    batch_size: int,
) -> dict[str, dict[str, Any]]:
    """Share of things named when asked what is shown, for each system; of data that say what is shown."""
    asked = [replace(row.sample, answer=row.sample.concepts["object"], options=()) for row in described(test)]
    asked = asked[:limit] if limit is not None else asked
    if not asked:
        return {}
    systems: dict[str, Any] = {NONE: base}
    for defense in defenses:
        systems[defense.name] = defense.fit(base, []).guard(base)
    made = {}
    for name, system in systems.items():
        answers = system.generate(asked, max_new_tokens=max_new_tokens, batch_size=batch_size)
        right = [bool(is_correct(sample, text)) for sample, text in zip(asked, answers, strict=True)]
        made[name] = asdict(rate(right, "naming", groups_of(asked).tolist()))
    return made
