"""The lens trajectory: how the decision to refuse grows over the blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from ..stats.curve import Curve
from .theme import NEUTRAL, PAGE, SAFE, UNSAFE, block_axis, new_figure, theme


def plot_trajectory(trajectories: Mapping[str, Any], agreement: Curve, n_blocks: int, title: str = "") -> Figure:
    """Mean refusal log-odds of the logit lens for refused and for answered items, and the share of items on
    which the lens already shows the model's own first token (95 % intervals)."""
    blocks = tuple(trajectories["blocks"])
    with theme():
        figure = new_figure(PAGE, 3.7)
        above, below = figure.subplots(2, 1, height_ratios=[2, 1], sharex=True)
        for name, colour in (("refused", UNSAFE), ("answered", SAFE)):
            part = trajectories[name]
            if part["value"] is None:
                above.plot([], [], color=colour, label=f"{name} items: {part['n']}, too few")
                continue
            above.fill_between(blocks, part["low"], part["high"], color=colour, alpha=0.2, lw=0)
            above.plot(blocks, part["value"], color=colour, marker="o", ms=3, label=f"{name} items (n = {part['n']})")
        above.axhline(0, color=NEUTRAL, lw=0.8, ls=(0, (3, 2)))
        above.set_ylabel("lens refusal log-odds (nats)")
        above.set_title(title or "From decision to words", pad=5)
        block_axis(above, blocks, n_blocks)
        above.set_xlabel("")
        above.tick_params(labelbottom=False)
        below.fill_between(agreement.blocks, agreement.low, agreement.high, color="#222222", alpha=0.2, lw=0)
        below.plot(agreement.blocks, agreement.value, color="#222222", marker="o", ms=3)
        if agreement.null is not None:
            below.fill_between(agreement.blocks, 0, agreement.null, color="#E3E3E3", lw=0, zorder=0)
            below.text(blocks[0], 0.03, "another item's token (95 %)", fontsize=6, color="#4A4A4A", va="bottom")
        below.set_ylim(0, 1.04)
        below.set_ylabel("top token is\nthe final one")
        block_axis(below, blocks, n_blocks, depth_axis=False)
        figure.legend(*above.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
