"""How far the measures agree: every measure of a role as a thin line, the headline measure with its interval.

Measures have different units, so each is drawn as a share of its own height: 0 is what it has to beat at that block
(the highest of null mean and baselines), 1 its best block.  A thin dashed line found nothing; a dotted one is drawn and
not counted; a cross marks a measure that missed its targets on models whose answer is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..locate.consensus import ConsensusRole
from ..locate.roles import floor_of
from ..stats.curve import Curve
from .theme import NEUTRAL, PAGE, ROLE_COLOURS, ROLE_TITLES, block_axis, headline, new_figure, theme

_ORDER = ("perception", "semantics", "expression")
_THIN = ("#000000", "#CC79A7", "#56B4E9", "#E69F00", "#777777", "#8B6D00", "#5D3A9B")


def share_of_height(curve: Curve, values: np.ndarray | None = None) -> np.ndarray:
    """``(values - floor) / (best value - floor there)``, ``[..., block]``; zeros where nothing rises above it."""
    floor = floor_of(curve)
    top = float(np.nanmax(curve.value - floor))
    values = curve.value if values is None else values
    return (values - floor) / top if top > 0 else np.zeros_like(values)


def _drawn(share: np.ndarray) -> np.ndarray:
    """Shares as they are drawn: an interval that reaches past the best block's height ends there."""
    return np.clip(share, -0.3, 1.0)


def plot_consensus_atlas(
    curves: Mapping[str, Mapping[str, Curve]],
    consensus: Mapping[str, ConsensusRole],
    n_blocks: int,
    title: str = "",
    caveat: str = "",
    headlines: Mapping[str, str] | None = None,
    standing: Mapping[str, str] | None = None,
) -> Figure:
    """One panel a role.

    Args:
        curves: by role, then by measure.
        consensus: by role (:func:`~lvlm_lens.locate.consensus.consensus_role`).
        n_blocks: depth of the model.
        title, caveat: headline, and small print under the figure.
        headlines: by role, the measure drawn thick with its interval.
        standing: by measure, ``reached``, ``missed`` or ``untested``.
    """
    shown = [role for role in _ORDER if role in consensus and curves.get(role)]
    with theme():
        figure = new_figure(PAGE, 1.85 * len(shown) + 0.75)
        panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axes, role in zip(panels, shown, strict=True):
            _panel(axes, role, curves[role], consensus[role], (headlines or {}).get(role), standing or {})
            blocks = next(iter(curves[role].values())).blocks
            block_axis(axes, blocks, n_blocks, depth_axis=axes is panels[0])
            if axes is not panels[-1]:
                axes.set_xlabel("")
                axes.tick_params(labelbottom=False)
        if title:
            headline(figure, title)
        marks = [
            "each line: share of its height above null and baselines; dashed: nothing found; dotted: not counted",
            "diamond and bar: onset of the consensus, 95 % interval; shaded: where it rises"
            + ("; ×: misses its targets on constructed models" if "missed" in (standing or {}).values() else ""),
        ]
        figure.supxlabel("\n".join([*marks, caveat] if caveat else marks), fontsize=6, x=0.01, ha="left", color=NEUTRAL)
    return figure


def _panel(
    axes: Axes,
    role: str,
    curves: Mapping[str, Curve],
    found: ConsensusRole,
    headline: str | None,
    standing: Mapping[str, str],
) -> None:
    colour = ROLE_COLOURS[role]
    axes.axhline(0, color=NEUTRAL, lw=0.6)
    for number, (name, curve) in enumerate(curves.items()):
        seen = found.members[name].found
        dashes: object = "-" if seen else (0, (4, 2))
        if name in found.excluded:
            dashes = (0, (1, 1.3))
        line, words = share_of_height(curve), name.replace("_", " ")
        if standing.get(name) == "missed":
            words += " ×"
        if name == headline:
            low, high = share_of_height(curve, curve.low), share_of_height(curve, curve.high)
            axes.fill_between(curve.blocks, _drawn(low), _drawn(high), color=colour, alpha=0.18, lw=0)
            axes.plot(curve.blocks, line, color=colour, marker="o", ms=2.6, ls=dashes, label=words, zorder=4)
        else:
            axes.plot(curve.blocks, _drawn(line), color=_THIN[number % len(_THIN)], lw=0.8, ls=dashes, label=words)
    if found.found and found.onset is not None:
        assert found.onset_low is not None and found.onset_high is not None
        start, end = found.start, found.end
        if start is not None and end is not None:
            axes.axvspan(start - 0.5, end + 0.5, color=colour, alpha=0.10, lw=0)
        below: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "color": colour, "clip_on": False}
        axes.plot([found.onset_low, found.onset_high], [0.06, 0.06], lw=1.4, solid_capstyle="butt", **below)
        axes.plot(found.onset, 0.06, marker="D", ms=4, **below)
    counted = [name for name in found.members if name not in found.excluded]
    seen_count = sum(found.members[name].found for name in counted)
    said = (
        f"from block {found.onset} [{found.onset_low}, {found.onset_high}]" if found.found else "not found"
    ) + f", {seen_count} of {len(counted)} measures"
    if len(counted) < 2:
        said = f"no consensus, {'one' if counted else 'none'} of its measures counts"
    axes.set_title(f"{ROLE_TITLES[role]}: {said}", pad=22 if role == "perception" else 8)
    axes.set_ylim(-0.3, 1.02)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("share of height")
    axes.legend(loc="center left", bbox_to_anchor=(1.005, 0.5), fontsize=6, handlelength=1.8, labelspacing=0.3)
