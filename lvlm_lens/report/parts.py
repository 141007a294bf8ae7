"""What a page is made of: sections of paragraphs, tables and figures, as plain values that the template draws."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Text:
    """A paragraph; ``lead`` makes it larger."""

    text: str
    lead: bool = False
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Picture:
    """A figure: a ``data:`` address and the caption, which is its alternative text too."""

    source: str
    caption: str
    kind: str = field(default="picture", init=False)


@dataclass(frozen=True)
class Table:
    """A table that sorts by any column; long ones start folded.

    ``rows`` hold :class:`Cell` values or anything that :func:`cell` understands.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    folded: bool = False
    kind: str = field(default="table", init=False)

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows as cells."""
        return [[cell(value) for value in row] for row in self.rows]


@dataclass(frozen=True)
class Listing:
    """A list of lines; ``folded`` under its caption."""

    caption: str
    lines: Sequence[str]
    folded: bool = True
    kind: str = field(default="listing", init=False)


@dataclass(frozen=True)
class Explorer:
    """The place of the linked views (curves, items, patch grid) that the page's script draws from the run's data."""

    kind: str = field(default="explorer", init=False)


@dataclass(frozen=True)
class Section:
    """A heading that asks a question, and what answers it."""

    title: str
    parts: Sequence[Any]

    @property
    def anchor(self) -> str:
        """Its address within the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Number:
    """One of the few numbers at the top: value, its interval or comparison, what it is."""

    value: str
    detail: str
    label: str


@dataclass(frozen=True)
class Page:
    """Everything that the template needs.

    Attributes:
        title, subtitle: what was run on what.
        finding: one plain sentence.
        numbers: at most three.
        opening: the one figure at the top.
        sections: the rest, in reading order.
        origin: name and value of everything that a reader needs to repeat the run.
        links: file names in the run folder with what they hold.
        data: for the page's script (JSON), or ``None`` where nothing is interactive.
    """

    title: str
    subtitle: str
    finding: str
    numbers: Sequence[Number] = ()
    opening: Picture | None = None
    sections: Sequence[Section] = ()
    origin: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()
    links: Sequence[tuple[str, str]] = ()
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and what it sorts by."""

    shown: str
    key: float | str


def cell(value: Any) -> Cell:
    """A cell from a plain value: numbers with three digits, rates with their interval, dashes for nothing."""
    if isinstance(value, Cell):
        return value
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return Cell("-", -math.inf)
    if isinstance(value, bool):
        return Cell("yes" if value else "no", float(value))
    if isinstance(value, int):
        return Cell(f"{value:,}", float(value))
    if isinstance(value, float):
        return Cell(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}", value)
    if isinstance(value, Mapping) and {"value", "low", "high"} <= set(value):
        return Cell(percent(value), -math.inf if value["value"] is None else float(value["value"]))
    return Cell(str(value), str(value))


def percent(rate: Mapping[str, Any]) -> str:
    """A rate with its interval, in per cent."""
    if rate["value"] is None:
        return "-"
    shown = f"{100 * rate['value']:.0f} %"
    if rate["low"] is None or rate["high"] is None:
        return shown
    return f"{shown} [{100 * rate['low']:.0f}, {100 * rate['high']:.0f}]"


def interval(value: float | None, low: float | None, high: float | None, digits: int = 2, sign: bool = False) -> str:
    """A value with its interval, or a dash."""
    if value is None:
        return "-"
    form = f"{{:{'+' if sign else ''}.{digits}f}}"
    if low is None or high is None:
        return form.format(value)
    return f"{form.format(value)} [{form.format(low)}, {form.format(high)}]"


def plain_rows(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of a flat record, nested ones joined by dots."""
    rows: list[tuple[str, str]] = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            rows += [(f"{name}.{inner}", shown) for inner, shown in plain_rows(value)]
        elif isinstance(value, (list, tuple)):
            rows.append((str(name), " ".join(str(item) for item in value)))
        elif value is not None:
            rows.append((str(name), str(value)))
    return rows
