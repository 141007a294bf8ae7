"""Attention knockout by block: which flow the answer needs, and where in depth."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from ..stats.curve import Curve
from .theme import NEUTRAL, PAGE, block_axis, new_figure, theme

_COLOURS = ("#0072B2", "#E69F00", "#009E73")


def plot_flow(flows: Mapping[str, Curve], n_blocks: int, width: int, title: str = "") -> Figure:
    """Relative drop of the answer's probability when a flow is blocked in a window around each block.

    Args:
        flows: curves by the words that name them, e.g. ``image to question``.
        n_blocks: depth of the model.
        width: of the window, in blocks.
        title: headline.
    """
    with theme():
        figure = new_figure(PAGE, 2.8)
        axes = figure.subplots()
        for colour, (words, curve) in zip(_COLOURS, flows.items(), strict=False):
            axes.fill_between(curve.blocks, curve.low, curve.high, color=colour, alpha=0.18, lw=0)
            axes.plot(curve.blocks, curve.value, color=colour, marker="o", ms=3, label=words)
        axes.axhline(0, color=NEUTRAL, lw=0.7)
        axes.set_ylabel("relative drop of the\nanswer's probability")
        axes.set_title(title or f"Blocked attention, windows of {width} blocks", pad=5)
        blocks = next(iter(flows.values())).blocks
        block_axis(axes, blocks, n_blocks)
        figure.legend(loc="outside lower center", ncols=2, columnspacing=1.0)
    return figure
