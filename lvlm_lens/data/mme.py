"""MME: two yes-or-no questions about each picture in 14 tasks (arXiv 2306.13394).

The hub's Parquet (or the same as JSON Lines): ``question_id, image, question, answer, category``.  The group is the
picture, so that accuracy and "both right" (accuracy+) can be taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DataError
from .cards import DatasetCard, register
from .collect import Collector, FieldError, value, words
from .dataset import Dataset
from .reading import TABLE_SUFFIXES, read_table
from .sample import Sample
from .tables import pictures


def _sample(row: Any, out: Collector, seen: dict[str, int]) -> Sample:
    answer = words(row, "answer").capitalize()
    if answer not in ("Yes", "No"):
        raise FieldError(f"answer {answer!r} is neither Yes nor No", "answer")
    name, category = words(row, "question_id"), words(row, "category")
    group = f"{category}/{name}"
    seen[group] = seen.get(group, 0) + 1
    found = pictures(value(row, "image"), out, "image")
    if not found:
        raise FieldError("the record has no picture", "image")
    return Sample(
        id=f"{group}#{seen[group]}",
        text=words(row, "question"),
        images=found,
        split="test",
        group=group,
        label_joint="safe",
        category=category,
        answer=answer,
    )


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """Every table below the root."""
    out = Collector("mme", root, strict)
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in TABLE_SUFFIXES and path.is_file())
    if not files:
        raise DataError(f"data set 'mme': no Parquet or JSON Lines table under {root}")
    seen: dict[str, int] = {}
    for file in files:
        for place, row in read_table(file):
            with out.record(place, file):
                out.add(_sample(row, out, seen), place)
    return out.dataset()


CARD = register(
    DatasetCard(
        name="mme",
        title="MME",
        citation="Fu et al., MME, arXiv 2306.13394",
        licence="research",
        homepage="https://huggingface.co/datasets/lmms-lab/MME",
        download="hub data set lmms-lab/MME",
        files=("data/test-*.parquet|test-*.parquet|mme*.json|mme*.jsonl",),
        counts={"categories": 14},
        loader=load,
        source="third party",
        note="a measure of utility: labelled safe by convention, not by its authors",
    )
)
