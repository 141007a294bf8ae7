"""Gathering samples from foreign files: what is good is kept, what is not is named and counted.

A loader opens one :class:`Collector`, and reads each record inside ``with out.record(...)``.
Whatever raises :class:`FieldError` in there is one record left out: it becomes a
:class:`~lvlm_lens.data.dataset.Problem` with file, record and field, or, with ``strict=True``,
the error that stops the loading.  A missing *file* always stops.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from .dataset import Dataset, Problem
from .images import ImageFile
from .reading import Broken, read_csv
from .sample import Sample


class FieldError(DataError):
    """A record that cannot be used because of one field."""

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.field = field


class StrictStop(DataError):
    """The first bad record of a strict reading; it passes every :meth:`Collector.record` on its way out."""


def fields(row: Any) -> Mapping[str, Any]:
    """``row`` when it is an object with fields; raises :class:`FieldError` otherwise."""
    if isinstance(row, Broken):
        raise FieldError(row.reason)
    if not isinstance(row, Mapping):
        raise FieldError(f"the record is a {type(row).__name__}, not an object with fields")
    return row


def value(row: Any, field: str) -> Any:
    """``row[field]``; raises :class:`FieldError` when the record has no such field or cannot be read."""
    row = fields(row)
    if field in row and row[field] is None:
        raise FieldError(f"field {field!r} is empty", field)
    if field not in row:
        have = ", ".join(str(key) for key in row if key is not None)
        raise FieldError(f"no field {field!r}; the record has {have or 'no fields'}", field)
    return row[field]


def words(row: Any, field: str) -> str:
    """``row[field]`` as text that is not blank; raises :class:`FieldError` otherwise."""
    text = value(row, field)
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        text = str(text)
    if not isinstance(text, str):
        raise FieldError(f"field {field!r} is a {type(text).__name__}, not text", field)
    if not text.strip():
        raise FieldError(f"field {field!r} is empty", field)
    return text.strip()


def optional(row: Any, field: str) -> str | None:
    """``row[field]`` as text, or ``None`` when it is absent or blank; raises for a row without fields."""
    text = fields(row).get(field)
    return str(text).strip() or None if text is not None else None


def in_words(text: str, caption: str | None) -> str | None:
    """The request with what the picture shows said in words, or ``None`` without a caption."""
    return f"The picture shows: {caption.rstrip('.')}. {text}" if caption else None


class Collector:
    """Samples, problems and notes of one data set while its files are read."""

    def __init__(self, name: str, root: Path, strict: bool = False) -> None:
        self.name = name
        self.root = Path(root)
        self.strict = strict
        self.samples: list[Sample] = []
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._first: dict[str, str] = {}

    @contextmanager
    def record(self, record: str, file: Path | str = "") -> Iterator[None]:
        """Turn a :class:`DataError` raised inside into a counted problem (strict: let it stop)."""
        try:
            yield
        except StrictStop:
            raise
        except DataError as error:
            self.problem(record, str(error), file, getattr(error, "field", ""))

    def problem(self, record: str, reason: str, file: Path | str = "", field: str = "") -> None:
        """Count one record that is left out; raises when strict."""
        found = Problem(record, reason if len(reason) <= 500 else f"{reason[:500]} ...", self.shown(file), field)
        if self.strict:
            raise StrictStop(f"data set {self.name!r}: {found} (strict: the first bad record stops)")
        self.problems.append(found)

    def shown(self, file: Path | str) -> str:
        """``file`` relative to the root where it lies under it."""
        path = Path(file)
        return str(path.relative_to(self.root)) if file and path.is_relative_to(self.root) else str(file)

    def file(self, *names: str) -> Path:
        """The first of ``names`` that is a file under the root; raises when none is."""
        for name in names:
            if (self.root / name).is_file():
                return self.root / name
        here = sorted(path.name for path in self.root.iterdir())[:12] if self.root.is_dir() else None
        seen = f"it holds {', '.join(here) or 'nothing'}" if here is not None else "there is no such folder"
        raise DataError(
            f"data set {self.name!r}: no file {' or '.join(names)} under {self.root}; {seen}. "
            f"`lvlm-lens datasets {self.name}` says what to download and where to put it"
        )

    def csv(self, file: Path, *required: str) -> Iterator[tuple[str, Any]]:
        """Rows of a CSV file; raises naming the columns that exist when one of ``required`` is missing."""
        checked = False
        for place, row in read_csv(file):
            if not checked and isinstance(row, Mapping):
                checked = True
                missing = [name for name in required if name not in row]
                if missing:
                    raise DataError(
                        f"data set {self.name!r}: {self.shown(file)} has no column {missing[0]!r}; "
                        f"its columns are {', '.join(row)}"
                    )
            yield place, row

    def has(self, path: str | Path) -> bool:
        """Whether ``path`` is a file under the root; False also for a name that no file can have."""
        try:
            return (self.root / path).is_file()
        except (ValueError, OSError):
            return False

    def image(self, path: str | Path, field: str = "image", *others: str | Path) -> ImageFile:
        """The first of ``path`` and ``others`` that is a file under the root.

        Raises :class:`FieldError`, in the words for ``path``, when none is there or ``path`` leaves the root.
        """
        try:
            ImageFile(self.root, str(path)).resolve()
        except (ValueError, OSError) as error:  # a name no file can have: NUL characters, too long
            raise FieldError(f"image path {str(path)[:80]!r} is not a file name ({error})", field) from error
        except DataError as error:
            if "is not there" in str(error):
                for other in others:
                    found = ImageFile(self.root, str(other))
                    if self.has(other):
                        found.resolve()
                        return found
            raise FieldError(str(error), field) from error
        return ImageFile(self.root, str(path))

    def add(self, sample: Sample, place: str = "") -> None:
        """Keep ``sample`` under the data set's name; a second one with the same id raises :class:`FieldError`."""
        if sample.id in self._first:
            first = f", first seen at {self._first[sample.id]}" if self._first[sample.id] else ""
            raise FieldError(f"duplicate id {sample.id!r}{first}", "id")
        self._first[sample.id] = place
        self.samples.append(sample if sample.dataset else replace(sample, dataset=self.name))

    def dataset(self) -> Dataset:
        """The data set; raises when not one record could be used."""
        if not self.samples:
            listed = "; ".join(str(problem) for problem in self.problems[:3])
            more = f" and {len(self.problems) - 3} more" if len(self.problems) > 3 else ""
            raise DataError(f"data set {self.name!r}: no usable record: {listed or 'its files hold none'}{more}")
        kept = (
            replace(sample, counterfactual=None)  # its partner was left out
            if sample.counterfactual is not None and sample.counterfactual not in self._first
            else sample
            for sample in self.samples
        )
        return Dataset(kept, self.name, self.problems, self.notes)
