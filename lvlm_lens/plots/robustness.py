"""The robustness table as a figure: each role's onset under every variant, beside the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .theme import NEUTRAL, PAGE, ROLE_COLOURS, headline, new_figure, theme


def plot_robustness(tables: Mapping[str, Sequence[Mapping[str, Any]]], n_blocks: int, title: str = "") -> Figure:
    """One column per role, one row per variant: onset with its interval, or why there is none.

    Args:
        tables: by role, rows of :func:`~lvlm_lens.locate.robustness.robustness_table` (the reference first).
        n_blocks: depth of the model.
        title: headline.
    """
    roles = list(tables)
    rows = max(len(table) for table in tables.values())
    with theme():
        figure = new_figure(PAGE, 0.19 * rows + 1.1)
        for column, (axes, role) in enumerate(
            zip(figure.subplots(1, len(roles), squeeze=False, sharey=True)[0], roles, strict=True)
        ):
            table, colour = tables[role], ROLE_COLOURS[role]
            names = []
            for at, row in enumerate(table):
                y = -at
                names.append("reported" if not at else f"{row['setting']}")
                if row["found"]:
                    if not at:
                        axes.axvspan(row["onset_low"] - 0.3, row["onset_high"] + 0.3, color=colour, alpha=0.13, lw=0)
                    axes.plot([row["onset_low"], row["onset_high"]], [y, y], color=colour, lw=1.3)
                    same = not at or row["overlaps"]
                    axes.plot(row["onset"], y, marker="o" if same else "X", ms=4 if same else 5, color=colour)
                else:
                    axes.text(0, y, "not found", fontsize=6, color=NEUTRAL, style="italic", va="center")
            axes.set_xlim(-0.6, n_blocks - 0.4)
            axes.set_ylim(-rows + 0.4, 0.6)
            axes.set_title(role.capitalize(), fontsize=7.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel("block of the onset")
            axes.grid(axis="x")
            if column == 0:
                axes.set_yticks([-at for at in range(len(names))], names, fontsize=6.5)
        headline(figure, title or "Onsets when what should not matter is changed (X: intervals do not meet)")
    return figure
