"""The defence plane: what an attack still achieves against what harmless requests lose, cost as the mark's size.

Names stand in a column beside the plane, in the order of their marks, each joined to its mark by a thin line: with many
defences that lie close together, names beside the marks would cover each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .theme import NEUTRAL, PAGE, ROLE_INK, SAFE, UNSAFE, new_figure, theme

UNSAFE_INK = ROLE_INK["perception"]


def defense_plane(points: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Attack success (down is better) against over-refusal (left is better), with intervals.

    Args:
        points: rows with ``name``, ``attack_success`` and ``over_refusal`` (each a rate: ``value``, ``low``, ``high``,
            ``total``) and ``forwards`` a query, as ``EvaluationResult.plane()`` makes them; row ``none`` is undefended.
        title: of the axes.
    """
    with theme():
        figure = new_figure(PAGE, 3.9)
        axes = figure.add_subplot()
        shown = [p for p in points if _known(p)]
        most = max((p.get("forwards") or 0.0 for p in shown), default=0.0) or 1.0
        for point in sorted(shown, key=lambda p: -p["attack_success"]["value"]):
            x, y = point["over_refusal"], point["attack_success"]
            colour = UNSAFE if point["name"] == "none" else SAFE
            axes.errorbar(
                100 * x["value"],
                100 * y["value"],
                xerr=_arms(x),
                yerr=_arms(y),
                fmt="none",
                ecolor=NEUTRAL,
                elinewidth=0.6,
                alpha=0.6,
            )
            size = 15 + 120 * (point.get("forwards") or 0.0) / most
            axes.scatter(100 * x["value"], 100 * y["value"], s=size, color=colour, alpha=0.75, linewidths=0, zorder=3)
        axes.set_xlim(*_range(shown, "over_refusal"))
        axes.set_ylim(*_range(shown, "attack_success"))
        axes.grid(True, axis="both")
        axes.set_xlabel("over-refusal of harmless requests (%)")
        axes.set_ylabel("attack success (%)")
        axes.set_title(title or "Defence plane (size of a mark: forwards per query)")
        _name_beside(axes, shown)
        return figure


def _arms(rate: Mapping[str, Any]) -> list[list[float]]:
    """Lengths of an interval's two arms in per cent; rounding may not turn one of length 0 below 0."""
    return [[max(0.0, 100 * (rate["value"] - rate["low"]))], [max(0.0, 100 * (rate["high"] - rate["value"]))]]


def _range(points: Sequence[Mapping[str, Any]], key: str) -> tuple[float, float]:
    """From 0 to the next ten above the highest interval: what is empty says nothing."""
    high = max((100 * point[key]["high"] for point in points), default=100.0)
    top = min(100.0, 10 * np.ceil(high / 10))
    return -0.03 * top, 1.03 * top


def _name_beside(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    """Write the names in a column right of the plane, highest attack success first, evenly spread where they crowd."""
    ordered = sorted(points, key=lambda point: -point["attack_success"]["value"])
    low, high = axes.get_ylim()
    wanted = [(100 * point["attack_success"]["value"] - low) / (high - low) for point in ordered]
    for point, height in zip(ordered, _spread(wanted, gap=1 / max(len(ordered) + 1, 18)), strict=True):
        x, y = 100 * point["over_refusal"]["value"], 100 * point["attack_success"]["value"]
        axes.annotate(
            str(point["name"]).replace("_", " "), xy=(x, y), xytext=(1.04, height), xycoords="data",
            textcoords="axes fraction", fontsize=6.8, va="center", annotation_clip=False,
            color=UNSAFE_INK if point["name"] == "none" else "#222222",
            arrowprops={"arrowstyle": "-", "lw": 0.5, "ls": ":", "color": NEUTRAL, "shrinkA": 1, "shrinkB": 2},
        )  # fmt: skip


def _spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Heights in 0 to 1, falling, at least ``gap`` apart, as near to the wanted ones as two passes bring them."""
    heights: list[float] = []
    for value in wanted:
        heights.append(min(value, heights[-1] - gap) if heights else min(value, 1.0))
    low = 0.0
    for at in range(len(heights) - 1, -1, -1):  # what was pushed below the plane comes back up
        heights[at] = max(heights[at], low)
        low = heights[at] + gap
    return heights


def _known(point: Mapping[str, Any]) -> bool:
    return all(point[key]["value"] is not None and point[key]["total"] for key in ("attack_success", "over_refusal"))
