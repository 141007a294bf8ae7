"""Rival claims beside each other over relative depth: published ranges in grey, what was found here in colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from ..depth import relative_depth
from .theme import NEUTRAL, PAGE, SAFE, UNSAFE, new_figure, theme

_GREY = "#C9C9C9"


def plot_rivals(rows: Sequence[Mapping[str, Any]], n_blocks: int, title: str = "") -> Figure:
    """One line a claim.

    Args:
        rows: of :func:`~lvlm_lens.rivals.bench.run_rivals`, as dictionaries.
        n_blocks: depth of the model measured here.
        title: of the figure.

    Grey bars: published ranges, one per model.  Blue bar: the range found here; its whiskers are where 95 % of the
    halves of the data put its two ends; the dot is the block with the largest value.  An orange bar is a range that
    the procedure finds in at least half of the shuffled labels as well.  A hollow bar stands at blocks that are set by
    a rule of depth.
    """
    with theme():
        figure = new_figure(PAGE, 0.48 * len(rows) + 1.1)
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            _published(axes, place, row["published"])
            if row["state"] == "not asked":
                axes.text(0.01, place + 0.14, "not asked", fontsize=6.5, color=NEUTRAL, va="center")
            elif row["state"] == "nothing":
                axes.text(0.01, place + 0.14, "nothing found", fontsize=6.5, color=NEUTRAL, va="center")
            else:
                _found(axes, place, row, n_blocks)
            axes.text(1.02, place, _aside(row), fontsize=6.2, va="center", color="#333333")
        axes.set_yticks(range(len(rows)), [row["title"] for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
        axes.set_xlabel("relative depth (%); grey: published, one bar a model; colour: found here")
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        axes.set_title(title or "Claims about where safety lives, each by its own procedure")
    return figure


def _published(axes: Any, place: int, published: Sequence[Mapping[str, Any]]) -> None:
    height = 0.3 / max(1, len(published))
    for number, claim in enumerate(published):
        start = relative_depth(claim["first"] - 1, claim["n_blocks"])
        width = relative_depth(claim["last"], claim["n_blocks"]) - start
        axes.barh(place - 0.36 + number * height, width, height * 0.85, start, color=_GREY, align="edge", zorder=2)


def _found(axes: Any, place: int, row: Mapping[str, Any], n_blocks: int) -> None:
    at, height = place + 0.14, 0.26
    start, end = relative_depth(row["first"] - 1, n_blocks), relative_depth(row["last"], n_blocks)
    fickle = row["in_shuffled"] is not None and row["in_shuffled"] >= 0.5
    colour = UNSAFE if fickle else SAFE
    if row["state"] == "placed":
        axes.barh(at, end - start, height, start, color="none", edgecolor=NEUTRAL, linewidth=0.9, zorder=3)
    else:
        axes.barh(at, end - start, height, start, color=colour, alpha=0.75, zorder=3)
        for low, high, edge in (("first_low", "first_high", -1), ("last_low", "last_high", 0)):
            if row[low] is not None:
                ends = [relative_depth(row[key] + edge, n_blocks) for key in (low, high)]
                axes.plot(ends, [at, at], color="black", lw=0.9, marker="|", ms=5, zorder=4)
    if row["peak"] is not None:
        axes.plot(
            relative_depth(row["peak"] - 0.5, n_blocks), at, "o", ms=3, color="white", mec="black", mew=0.7, zorder=5
        )


def _aside(row: Mapping[str, Any]) -> str:
    """Right of a line: on how much it rests, how often shuffled labels give a range, and models of known answer."""
    said = []
    if row["state"] != "not asked":
        shuffled = "" if row["in_shuffled"] is None else f", shuffled {100 * row['in_shuffled']:.0f} %"
        said.append(f"n {row['n']}{shuffled}")
    known = (row.get("constructed") or {}).get("many_pairs")
    if known is not None and known["asked"] and known["holds"]["n"]:
        alarms = known["false_alarms"]
        said.append(
            f"known answer: {known['holds']['count']}/{known['holds']['n']} held, {alarms['count']}/{alarms['n']} false"
        )
    return "\n".join(said)
