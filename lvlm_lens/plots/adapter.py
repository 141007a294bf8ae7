"""Into which blocks a training wrote: an adapter grid over the depth, above the roles that an atlas found there."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..causal.adapter_result import AdapterGrid
from ..locate.roles import LayerRoles
from ..stats.groups import bootstrap_mean
from .theme import (
    NEUTRAL,
    PAGE,
    ROLE_COLOURS,
    ROLE_INK,
    ROLE_TITLES,
    SAFE,
    UNSAFE,
    block_axis,
    headline,
    new_figure,
    theme,
)

_MEMBERS = (("refusal", "harmful prompts", UNSAFE), ("over_refusal", "harmless prompts", SAFE))
_NAMES = {"denoise": "on in the base (sufficient)", "noise": "off in the trained model (necessary)"}
_PARTS = {"adapter": "whole block", "adapter.attn": "attention", "adapter.mlp": "MLP"}


def plot_adapter_grid(grid: AdapterGrid, roles: LayerRoles | None = None, title: str = "") -> Figure:
    """Every span of a grid as a row: switched on in the base at the left, off in the trained model at the right.

    The metric's mean over prompts with its 95 % interval over groups, between the base and the trained model (dotted).
    A block is marked where the change survives the control for many tests on the harmful prompts (large mark) or the
    harmless ones (small).  With several sites, the single blocks are drawn a site a line, on the harmful prompts.

    Args:
        grid: what to draw.
        roles: of an atlas of the base model; drawn as bars under the panels.
        title: headline.
    """
    refusal = grid.refusal
    spans = [
        (site, span)
        for site in refusal.sites
        for span in refusal.positions
        if np.isfinite(_values(grid, "refusal", "denoise", site, span)).any(1).sum() > 1
    ]
    found = grid.summary()
    rows = len(spans) + (roles is not None)
    heights = [1.0] * len(spans) + [0.42] * (roles is not None)
    with theme():
        figure = new_figure(PAGE, 1.5 * sum(heights) + 1.1)
        panels = figure.subplots(
            rows, len(refusal.directions), sharex=True, sharey="row", squeeze=False, height_ratios=heights
        )
        for (site, span), line in zip(spans, panels, strict=False):
            for axes, direction in zip(line, refusal.directions, strict=True):
                _panel(axes, grid, direction, site, span, found)
            name = f"{_PARTS.get(site, site)}: {span}" if len(refusal.sites) > 1 else span
            line[0].set_ylabel(f"{name}\n{refusal.metric.replace('_', ' ')}", fontsize=6.5)
        if roles is not None:
            for axes in panels[-1]:
                _roles(axes, roles)
        for at, axes in enumerate(panels[0]):
            axes.set_title(_NAMES[refusal.directions[at]], pad=16)
        n_blocks = len(refusal.blocks)
        for line in panels:
            for axes in line:
                block_axis(axes, refusal.blocks, n_blocks, depth_axis=axes in panels[0])
                if axes not in panels[-1]:
                    axes.set_xlabel("")
                    axes.tick_params(labelbottom=False)
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        headline(figure, title or _headline(grid), 9)
    return figure


def _values(grid: AdapterGrid, member: str, direction: str, site: str, span: str) -> np.ndarray:
    return grid.curve(span, direction, site, member)


def _panel(axes: Axes, grid: AdapterGrid, direction: str, site: str, span: str, found: object) -> None:
    blocks = np.asarray(grid.refusal.blocks)
    for member, name, colour in _MEMBERS:
        own = getattr(grid, member)
        values = _values(grid, member, direction, site, span)  # [block, pair]
        there = np.isfinite(values).any(1)
        low, high = bootstrap_mean(values[there], own.groups)
        mean = values[there].mean(1)
        axes.plot(blocks[there], mean, color=colour, label=name)
        axes.fill_between(blocks[there], low, high, color=colour, alpha=0.16, lw=0)
        for end, style in ((own.corrupted, ":"), (own.clean, "--")):
            label = {":": "base model", "--": "trained model"}[style] if member == "refusal" else None
            axes.axhline(end.mean(), color=colour, ls=style, lw=0.8, label=label)
        cells = found[  # type: ignore[index]
            (found["on"] == name.split()[0]) & (found["direction"] == direction)  # type: ignore[index]
            & (found["site"] == site) & (found["span"] == span) & found["survives"]  # type: ignore[index]
        ]["block"].to_numpy()  # fmt: skip
        alive = np.isin(blocks[there], cells)
        axes.plot(blocks[there][alive], mean[alive], "o", ms=3.2 if member == "refusal" else 2, color=colour)
    axes.axhline(0, color="#BBBBBB", lw=0.7, zorder=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _roles(axes: Axes, roles: LayerRoles) -> None:
    """A bar from the onset to the peak's plateau of each role that was found."""
    for row, role in enumerate(roles):
        title = ROLE_TITLES[role.name].split()[-1].lower() if role.name == "expression" else role.name
        if role.found and role.range is not None:
            start, end = role.range
            axes.barh(row, end - start + 1, left=start - 0.5, height=0.62, color=ROLE_COLOURS[role.name], alpha=0.85)
            axes.text(end + 0.8, row, title, va="center", fontsize=6.5, color=ROLE_INK[role.name])
        else:
            axes.text(0, row, f"{title}: {role.absence}", va="center", fontsize=6.5, color=NEUTRAL)
    axes.set_ylim(2.6, -0.6)
    axes.set_yticks([])
    axes.grid(False)
    axes.spines["left"].set_visible(False)


def _headline(grid: AdapterGrid) -> str:
    base, trained = grid.refusal.corrupted.mean(), grid.refusal.clean.mean()
    return (
        f"{grid.record['name']}: {grid.refusal.metric.replace('_', ' ')} on harmful prompts from {base:+.2f} to "
        f"{trained:+.2f} ({len(grid.refusal.pairs)} pairs)"
    )
