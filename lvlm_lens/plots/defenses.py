"""The defence plane: what an attack still achieves against what harmless requests lose, cost as the mark's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from .theme import NEUTRAL, SAFE, UNSAFE, new_figure, theme


def defense_plane(points: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Attack success (down is better) against over-refusal (left is better), with intervals.

    Args:
        points: rows with ``name``, ``attack_success`` and ``over_refusal`` (each a rate: ``value``, ``low``, ``high``,
            ``total``) and ``forwards`` a query, as ``EvaluationResult.plane()`` makes them; row ``none`` is undefended.
        title: of the axes.
    """
    with theme():
        figure = new_figure(5.2, 3.6)
        axes = figure.add_subplot()
        shown = [p for p in points if _known(p)]
        most = max((p.get("forwards") or 0.0 for p in shown), default=0.0) or 1.0
        labels: list[tuple[float, float]] = []
        for point in sorted(shown, key=lambda p: -p["attack_success"]["value"]):
            x, y = point["over_refusal"], point["attack_success"]
            colour = UNSAFE if point["name"] == "none" else SAFE
            axes.errorbar(
                100 * x["value"],
                100 * y["value"],
                xerr=[[100 * (x["value"] - x["low"])], [100 * (x["high"] - x["value"])]],
                yerr=[[100 * (y["value"] - y["low"])], [100 * (y["high"] - y["value"])]],
                fmt="none",
                ecolor=NEUTRAL,
                elinewidth=0.6,
                alpha=0.6,
            )
            size = 15 + 120 * (point.get("forwards") or 0.0) / most
            axes.scatter(100 * x["value"], 100 * y["value"], s=size, color=colour, alpha=0.75, linewidths=0, zorder=3)
            at = _free_place(100 * x["value"] + 2.2, 100 * y["value"] - 3.0, labels)
            labels.append(at)
            axes.text(*at, str(point["name"]), fontsize=6.5, va="center", zorder=4)
        axes.set_xlim(-3, 103)
        axes.set_ylim(-3, 103)
        axes.grid(True, axis="both")
        axes.set_xlabel("over-refusal of harmless requests (%)")
        axes.set_ylabel("attack success (%)")
        axes.set_title(title or "Defence plane; the mark's size is forwards a query")
        return figure


def _free_place(x: float, y: float, taken: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The place itself, or the first one below it that no other name covers (percent of the axes)."""
    while any(abs(y - other_y) < 3.6 and abs(x - other_x) < 24 for other_x, other_y in taken):
        y -= 0.5
    return x, y


def _known(point: Mapping[str, Any]) -> bool:
    return all(point[key]["value"] is not None and point[key]["total"] for key in ("attack_success", "over_refusal"))
