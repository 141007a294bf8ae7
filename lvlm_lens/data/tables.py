"""Tables of any origin, read by naming their columns.

A CSV, JSON Lines, JSON or Parquet file, a folder of images with such a file in it, a pandas frame,
or rows from anywhere become samples by :class:`Columns`, which says which column is what.  Columns
that are not named are found by their usual names (``prompt``, ``image``, ``label`` ...), and the
data set's notes say which were taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..columns import USUAL
from ..errors import DataError, UsageError, near_matches
from .collect import Collector, FieldError
from .dataset import Dataset
from .groups import with_groups
from .images import ImageSource, as_image_source
from .labels import as_label, as_split
from .reading import TABLE_SUFFIXES, Broken, read_table
from .sample import Label, Sample


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column of a table is what; ``None`` means: look for its usual names.

    ``label`` is the joint label; ``label_map`` says what its values mean where they are not
    0/1, safe/unsafe, true/false or harmful/harmless.  ``counterfactual`` holds the id of the
    record that differs in one thing.
    """

    text: str | None = None
    image: str | None = None
    label: str | None = None
    label_image: str | None = None
    label_text: str | None = None
    id: str | None = None
    group: str | None = None
    split: str | None = None
    category: str | None = None
    counterfactual: str | None = None
    text_only: str | None = None
    caption: str | None = None
    reference: str | None = None
    label_map: Mapping[Any, str] | None = None

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Columns:
        """From keyword options; ``text="prompt"`` and ``text_column="prompt"`` are the same."""
        known = [field.name for field in fields(cls)]
        chosen = {}
        for option, name in options.items():
            field = option.removesuffix("_column")
            if field not in known:
                raise UsageError(
                    f"no column option {option!r}; the options are {', '.join(known)}{near_matches(field, known)}"
                )
            chosen[field] = name
        return cls(**chosen)

    def resolve(self, have: Iterable[str], where: str) -> tuple[Columns, list[str]]:
        """Names checked against the columns a table has; the unnamed found by :data:`USUAL`.

        Returns the resolved columns and a note for each that was found without being named.
        Raises :class:`DataError` naming the columns that exist when one is missing.
        """
        columns = [str(name) for name in have if name is not None]
        found: dict[str, Any] = {}
        taken = {getattr(self, field) for field in USUAL} - {None}
        for field, usual in USUAL.items():
            named = getattr(self, field)
            if named is not None and named not in columns:
                raise DataError(
                    f"{where}: no column {named!r} (asked for as {field}); "
                    f"the columns are {', '.join(columns)}{near_matches(named, columns)}"
                )
            if named is None:
                guess = next((name for name in usual if name in columns and name not in taken), None)
                if guess is not None:
                    found[field] = guess
        if self.text is None and "text" not in found:
            raise DataError(
                f"{where}: which column holds the text? None of {', '.join(USUAL['text'])} is there; "
                f"the columns are {', '.join(columns)}. Name it with text=COLUMN"
            )
        notes = [f"column {name!r} taken as {field}" for field, name in found.items() if name != field]
        return replace(self, **found), notes


def pictures(cell: Any, out: Collector, field: str) -> tuple[ImageSource, ...]:
    """The pictures of one cell: a path, bytes, a PIL image, the hub's {bytes, path}, or a list of these."""
    if cell is None or cell != cell or (isinstance(cell, str) and not cell.strip()):
        return ()
    if isinstance(cell, (list, tuple)):
        return tuple(picture for item in cell for picture in pictures(item, out, field))
    if isinstance(cell, Mapping):
        content = cell.get("bytes")
        return pictures(content if content is not None else cell.get("path"), out, field)
    if isinstance(cell, (str, Path)):
        return (out.image(str(cell).strip(), field),)
    return (as_image_source(cell),)


def _row(row: Any, columns: Columns, out: Collector, number: int, name: str) -> Sample:
    if isinstance(row, Broken):
        raise FieldError(row.reason)
    if not isinstance(row, Mapping):
        raise FieldError(f"the record is a {type(row).__name__}, not an object with fields")

    def cell(field: str) -> Any:
        column = getattr(columns, field)
        found = row.get(column) if column is not None else None
        return None if found is not None and isinstance(found, float) and found != found else found

    def text(field: str) -> str | None:
        found = cell(field)
        return None if found is None or not str(found).strip() else str(found).strip()

    def label(field: str) -> Label:
        column = getattr(columns, field)
        return as_label(cell(field), column, columns.label_map) if column is not None else "unknown"

    words = text("text")
    if words is None:
        raise FieldError("the record has no text", columns.text or "text")
    used = {getattr(columns, field) for field in USUAL}
    identity = text("id")
    if identity is not None and identity.endswith(".0") and isinstance(cell("id"), float):
        identity = identity[:-2]
    found, joint, worded = (
        pictures(cell("image"), out, columns.image or "image"),
        label("label"),
        label("label_text"),
    )
    return Sample(
        id=identity if identity is not None else f"{number:06d}",
        text=words,
        images=found,
        dataset=name,
        split=as_split(cell("split")),
        group=text("group") or "",
        counterfactual=text("counterfactual"),
        text_only=text("text_only"),
        caption=text("caption"),
        label_image=label("label_image"),
        label_text=joint if not found and worded == "unknown" else worded,
        label_joint=joint,
        category=text("category") or "",
        reference=text("reference"),
        meta={key: item for key, item in row.items() if key not in used and isinstance(item, (str, int, float, bool))},
    )


def from_rows(
    rows: Iterable[tuple[str, Any]],
    columns: Columns,
    name: str,
    root: Path,
    file: Path | str = "",
    strict: bool = False,
    limit: int | None = None,
) -> Dataset:
    """Samples from ``(place, record)`` rows.

    ``limit`` is for streams: at most that many of each label are held in memory, the rest are read past.
    """
    out = Collector(name, root, strict)
    resolved: Columns | None = None
    held: dict[str, int] = {}
    empty = True
    for number, (place, row) in enumerate(rows):
        empty = False
        if resolved is None and isinstance(row, Mapping):
            resolved, notes = columns.resolve(row, out.shown(file) or name)
            out.notes.extend(notes)
        with out.record(place, file):
            sample = _row(row, resolved or columns, out, number, name)
            if limit is not None and resolved is not None and resolved.counterfactual is None:
                if held.get(sample.label_joint, 0) >= limit:
                    continue
                held[sample.label_joint] = held.get(sample.label_joint, 0) + 1
            out.add(sample, place)
    if empty:
        raise DataError(f"{out.shown(file) or name}: the file has no records")
    out.samples = with_groups(out.samples)
    return out.dataset()


def read_file(path: Path, columns: Columns, root: Path | None = None, strict: bool = False) -> Dataset:
    """Samples from a .csv, .tsv, .jsonl, .json or .parquet file; images lie under ``root`` (its own folder)."""
    if not path.is_file():
        raise DataError(f"no file {path}")
    base = root if root is not None else path.parent
    if not base.is_dir():
        raise DataError(f"the image root {base} is not a folder")
    return from_rows(read_table(path), columns, path.stem, base, path, strict)


def table_in(folder: Path) -> Path:
    """The table of a folder of images: ``metadata.*``, or the only table there; raises otherwise."""
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() in TABLE_SUFFIXES)
    named = [path for path in tables if path.stem == "metadata"]
    if len(named or tables) == 1:
        return (named or tables)[0]
    if not tables:
        raise DataError(
            f"folder {folder} holds no table ({', '.join(TABLE_SUFFIXES)}) that says what its images are; "
            "put a metadata.csv with the columns image, text and label beside them"
        )
    raise DataError(f"folder {folder} holds several tables ({', '.join(p.name for p in tables)}); name the file itself")


def frame_rows(frame: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a pandas frame with their index as place."""
    columns = [str(name) for name in frame.columns]
    for index, row in zip(frame.index, frame.itertuples(index=False, name=None), strict=True):
        yield f"row {index}", dict(zip(columns, row, strict=True))
