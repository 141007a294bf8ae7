"""The atlas: the three roles over the depth of a model, the one figure that tells the whole story.

One panel a role over one depth axis.  Each shows the raw quantity with its 95 % interval above what it has to beat: the
strongest baseline of each block, and the twin with shuffled weights.  The title of a panel is its finding.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..locate.roles import LayerRoles, Role
from ..stats.curve import Curve
from .theme import BASELINE_TITLES, PAGE, ROLE_COLOURS, ROLE_INK, ROLE_TITLES, block_axis, headline, new_figure, theme

_ORDER = ("perception", "semantics", "expression")
_TWIN = "random_twin"
_LABEL_GAP = 0.075
"""Least distance between two labels at the right edge, as a share of the axis."""


def plot_atlas(
    curves: Mapping[str, Curve], roles: LayerRoles, n_blocks: int, title: str = "", caveat: str = ""
) -> Figure:
    """Curves of the three roles above their strongest baselines and twins, with what was found in each title.

    Args:
        curves: by role name; a missing role is named under the figure.
        roles: what was found.
        n_blocks: depth of the model.
        title, caveat: headline, and small print under the figure.
    """
    shown = [name for name in _ORDER if name in curves]
    absent = [f"{ROLE_TITLES[name]}: not measured. {roles[name].reason}" for name in _ORDER if name not in curves]
    print_below = [
        "line: AUROC, harmful against harmless, with its 95 % interval; dashed: nothing found",
        "mark and bar under a curve: block where it begins, 95 % interval",
        *absent,
        *([caveat] if caveat else []),
    ]
    with theme():
        figure = new_figure(PAGE, 1.75 * len(shown) + 0.8 + 0.1 * len(print_below))
        panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axes, name in zip(panels, shown, strict=True):
            _panel(axes, curves[name], roles[name])
            block_axis(axes, curves[name].blocks, n_blocks, depth_axis=axes is panels[0])
            axes.set_title(_finding(name, roles[name]), pad=5)
            if axes is not panels[-1]:
                axes.set_xlabel("")
                axes.tick_params(labelbottom=False)
        if title:
            headline(figure, title, 9.5)
        small = [line for text in print_below for line in textwrap.wrap(text, 150)]
        figure.supxlabel("\n".join(small), fontsize=6.5, x=0.01, ha="left", color="#555555")
    return figure


def _finding(name: str, role: Role) -> str:
    if not role.found:
        said = textwrap.shorten(f"{ROLE_TITLES[name]}: {role.absence}, {role.reason}", 140, placeholder=" ...")
        return textwrap.fill(said, 72)  # wider than the panel it would be cut
    where = f"from block {role.onset} [{role.onset_low}, {role.onset_high}]"
    best = "" if role.value is None else f", best {role.value:.2f} [{role.low:.2f}, {role.high:.2f}]"
    return f"{ROLE_TITLES[name]}: {where}{best}"


def _panel(axes: Axes, curve: Curve, role: Role) -> None:
    colour, blocks = ROLE_COLOURS[curve.name], list(curve.blocks)
    labels: list[tuple[float, str, str]] = [(float(curve.value[-1]), "this model", ROLE_INK[curve.name])]
    others = {name: np.asarray(b.on(len(curve)).value) for name, b in curve.baselines.items() if name != _TWIN}
    bottom = min(0.45, float(np.nanmin(curve.low)))
    if others:
        names = list(others)
        stacked = np.stack([others[name] for name in names])  # [baseline, block]
        strongest = stacked.max(0)
        axes.fill_between(blocks, bottom, strongest, color="#D9D9D9", lw=0, zorder=0)
        axes.plot(blocks, strongest, color="#6B6B6B", lw=0.9, zorder=1)
        best = names[int(stacked[:, -1].argmax())]
        labels.append((float(strongest[-1]), f"strongest baseline: {BASELINE_TITLES.get(best, best)}", "#555555"))
    if _TWIN in curve.baselines:
        twin = np.asarray(curve.baselines[_TWIN].on(len(curve)).value)
        axes.fill_between(blocks, bottom, twin, facecolor="none", edgecolor="#9A9A9A", hatch="////", lw=0, zorder=1)
        axes.plot(blocks, twin, color="#333333", lw=0.9, ls=(0, (4, 2)), zorder=2)
        labels.append((float(twin[-1]), BASELINE_TITLES[_TWIN], "#333333"))
    axes.fill_between(blocks, curve.low, curve.high, color=colour, alpha=0.22, lw=0, zorder=3)
    axes.plot(blocks, curve.value, color=colour, marker="o", ms=2.6, ls="-" if role.found else (0, (3, 2)), zorder=4)
    axes.set_ylim(bottom, 1.0)
    axes.set_ylabel("AUROC")
    if role.found and role.onset is not None:
        assert role.onset_low is not None and role.onset_high is not None
        at = bottom + 0.05 * (1 - bottom)
        axes.plot([role.onset_low, role.onset_high], [at, at], color=colour, lw=2, solid_capstyle="butt", zorder=5)
        axes.plot(role.onset, at, marker="D", ms=5, color=colour, mec="white", mew=0.6, zorder=6)
        axes.axvline(role.onset, color=colour, lw=0.7, ls=(0, (1, 1.5)), zorder=2)
    _label_ends(axes, labels, bottom)


def _label_ends(axes: Axes, labels: list[tuple[float, str, str]], bottom: float) -> None:
    """Write each line's name at its right end, pushed apart where they would touch."""
    height, last = 1.0 - bottom, 1.0 + 2 * _LABEL_GAP
    for value, words, colour in sorted(labels, reverse=True):
        share = min((value - bottom) / height, last - _LABEL_GAP)
        last = share
        axes.annotate(
            words,
            (1.008, share),
            xycoords="axes fraction",
            fontsize=6.8,
            va="center",
            color=colour,
            annotation_clip=False,
        )
