"""The head map: every attention head of every block, coloured by what switching it off does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .theme import PAGE, headline, new_figure, theme


def plot_head_map(tables: Mapping[str, Any], title: str = "") -> Figure:
    """Block x head: Ships' KL on harmful prompts, its contrast with harmless ones, and SASA's right-vector angle.

    Args:
        tables: of the measure ``head_attribution``: ``blocks``, ``kl_harmful``, ``contrast``, ``singular_vector``,
            ``top`` (ringed in the contrast's panel where at least a tenth of the largest), maps ``[block][head]``.
        title: headline.
    """
    blocks: Sequence[int] = tables["blocks"]
    panels = [
        ("KL when off, harmful prompts (nats)", np.asarray(tables["kl_harmful"]), "magma"),
        ("the same, harmful minus harmless (nats)", np.asarray(tables["contrast"]), "PuOr_r"),
        ("angle of the leading state direction (rad)", np.asarray(tables["singular_vector"]["right"]), "magma"),
    ]
    with theme():
        figure = new_figure(PAGE, max(2.4, 0.14 * len(blocks) + 1.2))
        for at, (axes, (words, values, colours)) in enumerate(
            zip(figure.subplots(1, 3, sharey=True), panels, strict=True)
        ):
            most = float(np.abs(values).max()) or 1.0
            low = -most if colours == "PuOr_r" else 0.0
            image = axes.imshow(values, aspect="auto", origin="lower", cmap=colours, vmin=low, vmax=most)
            figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02).ax.tick_params(labelsize=6)
            axes.set_title(words, fontsize=7, weight="normal")
            axes.set_xlabel("head")
            axes.grid(False)
            step = max(1, round(len(blocks) / 12))
            axes.set_yticks(range(0, len(blocks), step), [str(b) for b in list(blocks)[::step]])
            if at == 0:
                axes.set_ylabel("decoder block")
            if at == 1:
                for block, head in tables["top"]:
                    if values[list(blocks).index(block), head] < 0.1 * most:
                        continue
                    axes.plot(head, list(blocks).index(block), marker="o", mfc="none", mec="black", ms=5, mew=0.8)
        headline(figure, title or "Attention heads switched off, one at a time")
    return figure
