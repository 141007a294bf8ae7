"""Rows as TRL takes them: plain dictionaries in a ``datasets.Dataset``, pictures decoded when a row is asked for.

Collators write into the rows they are given, so each access makes fresh ones; only a ``datasets.Dataset`` is taken by
TRL.  Prompt and reply stand apart (``prompt``, ``completion``): in TRL's ``messages`` format only padding is masked,
and the user's words and the picture's tokens would be trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..data import Sample
from .method import Row

if TYPE_CHECKING:
    from ..lens import LVLM


def _said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def asked(model: LVLM, sample: Sample) -> list[dict[str, str]]:
    """The request as messages, with the model's system prompt where it has one."""
    system = model.encoder.system
    return [*(_said("system", system) if system else []), *_said("user", sample.text)]


def supervised(model: LVLM, row: Row) -> dict[str, Any]:
    """``prompt`` and ``completion``."""
    return {"prompt": asked(model, row.sample), "completion": _said("assistant", row.reply)}


def preference(model: LVLM, row: Row) -> dict[str, Any]:
    """``prompt``, ``chosen`` and ``rejected``."""
    return {
        "prompt": asked(model, row.sample),
        "chosen": _said("assistant", row.reply),
        "rejected": _said("assistant", row.worse or ""),
    }


def dataset_of(
    model: LVLM, rows: Sequence[Row], record: Callable[[LVLM, Row], dict[str, Any]], **columns: Sequence[Any]
) -> Any:
    """A ``datasets.Dataset`` of the rows.

    Args:
        model: which says whether rows have pictures: a text-only model's have no such column, another's always have
            it, empty where the request is in words (never ``None``).
        rows, record: one row to its words.
        columns: further columns, a value per row.
    """
    import datasets

    made: dict[str, list[Any]] = {}
    for row in rows:
        for key, value in record(model, row).items():
            made.setdefault(key, []).append(value)
    made |= {key: list(values) for key, values in columns.items()}
    if not model.takes_images:
        return datasets.Dataset.from_dict(made)
    made["row"] = list(range(len(rows)))
    plain = datasets.Dataset.from_dict(made)
    return plain.with_transform(_Pictures(rows))


class _Pictures:
    """Puts the pictures into rows when they are read."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        numbers = batch.pop("row") if "row" in batch else None
        if numbers is not None:
            batch["images"] = [[source.load() for source in self.rows[number].sample.images] for number in numbers]
        return batch
