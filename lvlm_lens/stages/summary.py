"""What a stage found, as lines and tables of plain text: the same on the terminal, in the report and in a notebook.

A stage's ``summary`` reads its part of the result's record, so a run that was opened again says what it said when it
ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Line:
    """One sentence."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table: ``columns``, and ``rows`` of as many cells; ``numbers`` names the columns to be set to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[str, ...] = ()
    caption: str = ""


Block = Line | Table


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], **more: Any) -> Table:
    """A :class:`Table`; every row is checked for its number of cells."""
    made = tuple(tuple(row) for row in rows)
    assert all(len(row) == len(columns) for row in made), (title, columns)
    return Table(title, tuple(columns), made, **more)


def percent(cell: Mapping[str, Any]) -> str:
    """A share with its interval, ``31 % [24, 40]``, or ``-`` where there is none."""
    if cell["value"] is None:
        return "-"
    return f"{100 * cell['value']:.0f} % [{100 * cell['low']:.0f}, {100 * cell['high']:.0f}]"


_PAGE = """\
{% for block in blocks %}{% if block.columns is defined %}\
<table><caption>{{ block.title }}</caption>
<thead><tr>{% for column in block.columns %}<th>{{ column }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in block.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody>
</table>{% if block.caption %}<p>{{ block.caption }}</p>{% endif %}
{% else %}<p>{{ block.text }}</p>
{% endif %}{% endfor %}"""


def as_html(blocks: Sequence[Block]) -> str:
    """The blocks as HTML, every text escaped."""
    from jinja2 import Environment

    return Environment(autoescape=True).from_string(_PAGE).render(blocks=blocks)


def as_text(blocks: Sequence[Block]) -> str:
    """The blocks as plain text."""
    parts = []
    for block in blocks:
        if isinstance(block, Line):
            parts.append(block.text)
            continue
        rows = [block.columns, *block.rows]
        widths = [max(len(row[at]) for row in rows) for at in range(len(block.columns))]
        sides = [str.rjust if name in block.numbers else str.ljust for name in block.columns]
        lines = [
            "  ".join(side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True)).rstrip()
            for row in rows
        ]
        parts.append("\n".join([block.title, *lines, *([block.caption] if block.caption else [])]))
    return "\n\n".join(parts)
