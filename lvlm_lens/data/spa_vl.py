"""SPA-VL: preference data for safety (arXiv 2406.12030).

Rows of ``image, question, chosen, rejected`` (and classes) in Parquet, JSON or JSON Lines, 100k for training, 265
harmful ones for testing.  The part a file belongs to is read from its path (``train``, ``validation``,
``test/harm``, ``test/help``).  Pictures inside Parquet stay there until they are looked at.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DataError
from .cards import DatasetCard, register
from .collect import Collector, optional, words
from .dataset import Dataset
from .reading import TABLE_SUFFIXES, read_table
from .sample import Sample
from .tables import pictures

PARTS = ("train", "validation", "harm", "help")


def _part(file: Path, root: Path) -> str:
    where = file.relative_to(root).as_posix().casefold()
    for part in ("harm", "help", "validation", "train"):
        if part in where:
            return part
    return "train"


def _sample(row: Any, out: Collector, part: str, name: str, folder: Path) -> Sample:
    cell = row.get("image") if isinstance(row, dict) else None
    if isinstance(cell, str):
        cell = str(folder / cell) if out.has(folder / cell) else cell
    return Sample(
        id=f"{part}-{name}",
        text=words(row, "question"),
        images=pictures(cell, out, "image"),
        split={"train": "train", "validation": "validation"}.get(part, "test"),
        group=f"{part}-{name}",
        label_joint={"harm": "unsafe", "help": "safe"}.get(part, "unknown"),  # type: ignore[arg-type]
        category=optional(row, "class1") or "",
        subcategory=optional(row, "class3") or optional(row, "class2") or "",
        reference=optional(row, "chosen"),
        meta={"rejected": optional(row, "rejected"), "part": part},
    )


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """Every table below the root, or those of subset ``train``, ``validation``, ``harm`` or ``help``."""
    out = Collector("spa_vl", root, strict)
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in TABLE_SUFFIXES and path.is_file())
    chosen = [file for file in files if subset in (None, _part(file, root))]
    if not chosen:
        raise DataError(f"data set 'spa_vl': no table of {subset or 'any part'} under {root}")
    for file in chosen:
        part = _part(file, root)
        for number, (place, row) in enumerate(read_table(file)):
            with out.record(place, file):
                own = optional(row, "id") if isinstance(row, dict) else None
                name = own or f"{file.stem}-{number}"
                out.add(_sample(row, out, part, name, file.parent.relative_to(root)), place)
    return out.dataset()


CARD = register(
    DatasetCard(
        name="spa_vl",
        title="SPA-VL",
        citation="Zhang et al., SPA-VL, CVPR 2025, arXiv 2406.12030",
        licence="CC BY 4.0",
        homepage="https://huggingface.co/datasets/sqrti/SPA-VL",
        download="hub data set sqrti/SPA-VL",
        files=("test/harm*|data/harm*|spa_vl_harm*",),
        counts={"meta.part=harm": 265},
        loader=load,
        subsets=PARTS,
        source="third party",
        aliases=("spa-vl",),
        note="training rows carry no label of the request; the harm test is labelled unsafe, the help test safe",
    )
)
