"""One role's curve with everything it has to beat."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ..locate.roles import Role
from ..stats.curve import Curve
from .theme import (
    BASELINE_COLOURS,
    BASELINE_TITLES,
    NEUTRAL,
    PAGE,
    ROLE_COLOURS,
    ROLE_TITLES,
    block_axis,
    new_figure,
    theme,
)


def plot_curve(
    curve: Curve,
    n_blocks: int,
    role: Role | None = None,
    title: str = "",
    others: Mapping[str, Curve] | None = None,
    fit: bool = False,
) -> Figure:
    """A curve with its interval, its shuffled-label null, its baselines, and its role's range shaded.

    ``others`` are drawn for comparison only (the language-only backbone on the same items, say), where their
    depth is the same.  ``fit`` scales the axis to the curve and its null, for units without a natural top.
    """
    colour = ROLE_COLOURS.get(curve.name, "#000000")
    with theme():
        figure = new_figure(PAGE, 2.9)
        axes = figure.subplots()
        if role is not None and role.found and role.range is not None:
            axes.axvspan(role.range[0] - 0.5, role.range[1] + 0.5, color=colour, alpha=0.10, lw=0)
        if curve.null is not None:
            axes.fill_between(
                curve.blocks, 0, curve.null, color="#E3E3E3", lw=0, zorder=0, label="shuffled labels (95 %)"
            )
        for name, baseline in curve.baselines.items():
            line = BASELINE_COLOURS.get(name, NEUTRAL)
            words = BASELINE_TITLES.get(name, name.replace("_", " "))
            by_block = baseline.on(len(curve))
            axes.plot(curve.blocks, by_block.value, color=line, lw=1.1, ls=(0, (4, 2)), label=words)
            axes.fill_between(curve.blocks, by_block.low, by_block.high, color=line, alpha=0.10, lw=0)
        for words, other in (others or {}).items():
            if other.blocks == curve.blocks:
                axes.plot(other.blocks, other.value, color="black", lw=1.1, ls=(0, (1, 1.2)), label=words)
        axes.fill_between(curve.blocks, curve.low, curve.high, color=colour, alpha=0.22, lw=0)
        axes.plot(curve.blocks, curve.value, color=colour, marker="o", ms=3, label="this model")
        bottom = min([float(curve.low.min()), *(float(np.min(b.on(len(curve)).low)) for b in curve.baselines.values())])
        axes.set_ylim(max(0.0, min(0.4, bottom) - 0.02) if curve.unit == "AUROC" else 0.0, 1.03)
        if fit:
            highest = [float(np.nanmax(curve.high)), 0.0 if curve.null is None else float(np.nanmax(curve.null))]
            axes.set_ylim(min(0.0, float(np.nanmin(curve.low))), 1.1 * max(*highest, 1e-6))
        axes.set_ylabel(curve.unit + (", harmful against harmless" if curve.unit == "AUROC" else ""))
        axes.set_title(title or ROLE_TITLES.get(curve.name, curve.name.replace("_", " ")), pad=5)
        block_axis(axes, curve.blocks, n_blocks)
        figure.legend(loc="outside lower center", ncols=4, columnspacing=1.4, handlelength=1.8)
    return figure
