"""Measured beside published: one line a value, its interval where it has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from .theme import NEUTRAL, PAGE, SAFE, headline, new_figure, theme


def plot_comparison(rows: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """A panel a unit; filled dots with 95 % intervals are measured, open diamonds are published.

    Args:
        rows: ``quantity``, ``where``, ``value``, ``low``, ``high``, ``unit`` and ``n`` (``None`` where published), as
            a recipe's comparison table has them; rows without a value are left out.
        title: of the figure.
    """
    shown = [row for row in rows if row["value"] is not None]
    units = list(dict.fromkeys(str(row["unit"]) for row in shown)) or ["%"]
    counts = [max(1, sum(row["unit"] == unit for row in shown)) for unit in units]
    with theme():
        figure = new_figure(PAGE, 0.23 * sum(counts) + 0.65 * len(units) + 0.4)
        panels = figure.subplots(len(units), 1, height_ratios=[count + 1.2 for count in counts], squeeze=False)[:, 0]
        for axes, unit in zip(panels, units, strict=True):
            mine = [row for row in shown if row["unit"] == unit]
            for y, row in enumerate(reversed(mine)):
                if row["low"] is not None and row["high"] is not None:
                    axes.plot([row["low"], row["high"]], [y, y], color=SAFE, lw=1.4)
                measured = row["n"] is not None
                axes.plot(
                    row["value"],
                    y,
                    "o" if measured else "D",
                    ms=4,
                    color=SAFE if measured else NEUTRAL,
                    mfc=SAFE if measured else "white",
                )
            axes.set_yticks(
                range(len(mine)), [f"{row['quantity']}: {row['where']}" for row in reversed(mine)], fontsize=6
            )
            axes.set_ylim(-0.7, max(len(mine), 1) - 0.3)
            axes.set_xlabel(unit)
            axes.grid(True, axis="x")
            axes.grid(False, axis="y")
        headline(figure, title or "Measured (dots, 95 % intervals) and published (diamonds)")
    return figure
