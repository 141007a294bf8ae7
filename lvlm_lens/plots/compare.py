"""Atlases of several runs side by side at relative depth, and the differences with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..depth import relative_depth
from ..locate.roles import LayerRoles
from ..stats.curve import Curve
from .theme import NEUTRAL, PAGE, ROLE_COLOURS, ROLE_INK, ROLE_TITLES, new_figure, theme

_ORDER = ("perception", "semantics", "expression")
_UNITS = {"onset": "onset (share of depth)", "peak": "peak (share of depth)", "value": "value at the best block"}


def plot_comparison(
    runs: Sequence[tuple[str, Mapping[str, Curve], LayerRoles, int]], tests: Sequence[Mapping[str, Any]]
) -> Figure:
    """Draw.

    Args:
        runs: name, curves by role, roles and number of blocks of each run.
        tests: rows of :class:`~lvlm_lens.comparison.Comparison`; those with a ``reason`` are left out.
    """
    columns = min(3, len(runs))
    rows = -(-len(runs) // columns)
    tested = [row for row in tests if "reason" not in row]
    height = 0.17 * len({(row["second"], row["first"], row["role"]) for row in tested})
    with theme():
        figure = new_figure(PAGE, 2.4 * rows + (height + 1.1 if tested else 0.4))
        parts: Any = figure.subfigures(2, 1, height_ratios=[2.4 * rows, height + 1.1]) if tested else (figure, None)
        above, below = parts
        grid = above.subplots(rows, columns, squeeze=False, sharey=True)
        for cell in grid.flat[len(runs) :]:
            cell.set_visible(False)
        for axes, run in zip(grid.flat, runs, strict=False):
            _atlas(axes, *run)
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
        for row in grid:
            row[0].set_ylabel("AUROC, harmful\nagainst harmless")
        if below is not None:
            _differences(below.subplots(1, len(_UNITS), sharey=False), tested)
    return figure


def _atlas(axes: Axes, name: str, curves: Mapping[str, Curve], roles: LayerRoles, depth: int) -> None:
    for at, role in enumerate(_ORDER):
        if role not in curves:
            continue
        curve, colour, found = curves[role], ROLE_COLOURS[role], roles[role]
        x = relative_depth(curve.blocks, depth)
        axes.fill_between(x, curve.low, curve.high, color=colour, alpha=0.18, lw=0)
        axes.plot(x, curve.value, color=colour, ls="-" if found.found else (0, (2, 2)), marker="o", ms=2,
                  label=ROLE_TITLES[role])  # fmt: skip
        if found.found and found.onset is not None:
            y = 0.30 + 0.045 * at
            assert found.onset_low is not None and found.onset_high is not None
            axes.plot(relative_depth([found.onset_low, found.onset_high], depth), [y, y], color=colour, lw=1.4)
            axes.plot(relative_depth(found.onset, depth), y, marker="D", ms=3.5, color=colour)
    axes.axhline(0.5, color=NEUTRAL, lw=0.6)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0.26, 1.03)
    axes.set_xlabel("relative depth (diamonds: onsets)")
    axes.set_title(f"{name} ({depth} blocks)", fontsize=7.5)


def _differences(panels: Sequence[Axes], tested: Sequence[Mapping[str, Any]]) -> None:
    """One line per role and pair of runs, the same lines in all three panels, named once at the left."""
    lines = list(dict.fromkeys((row["second"], row["first"], row["role"]) for row in tested))
    places = {line: -at for at, line in enumerate(lines)}
    for axes, (quantity, words) in zip(panels, _UNITS.items(), strict=True):
        for row in (row for row in tested if row["quantity"] == quantity):
            y, colour = places[row["second"], row["first"], row["role"]], ROLE_COLOURS[row["role"]]
            axes.plot([row["low"], row["high"]], [y, y], color=colour, lw=1.2)
            sure = row["q_value"] < 0.05
            axes.plot(row["difference"], y, marker="o", ms=4, color=colour, mfc=colour if sure else "white")
        axes.axvline(0, color=NEUTRAL, lw=0.7)
        axes.set_title("Difference: " + words, fontsize=7, weight="normal")
        axes.set_yticks(list(places.values()), [""] * len(lines))
        axes.set_ylim(-len(lines) + 0.4, 0.6)
        axes.grid(axis="x")
        left, right = axes.get_xlim()
        if right - left < 0.02:  # nothing but zeros: rounding is not to be read off an axis
            axes.set_xlim(-0.05, 0.05)
        axes.locator_params(axis="x", nbins=4)
    panels[0].set_yticklabels([f"{role}: {second} − {first}" for second, first, role in lines], fontsize=6)
    for tick, (_, _, role) in zip(panels[0].get_yticklabels(), lines, strict=True):
        tick.set_color(ROLE_INK[role])
    panels[-1].set_xlabel("filled: q < 0.05", fontsize=7)
