"""What equal trainings buy in different blocks: one figure, a panel a rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from .theme import NEUTRAL, PAGE, ROLE_COLOURS, new_figure, theme

_PANELS = {
    "attack_success": "attack success (%)",
    "over_refusal": "over-refusal (%)",
    "accuracy": "right on harmless (%)",
}
_ASKED = {"words": "in words", "pictures": "with pictures"}
_OFFSET = {"words": 0.14, "pictures": -0.14}


def study_figure(rows: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """A row per window; open marks in words, filled ones with pictures; small dots are seeds, dashed lines the base.

    Args:
        rows: of :func:`lvlm_lens.stages.training_study.training_study`.
        title: of the figure.
    """
    windows = [name for name in dict.fromkeys(row["window"] for row in rows) if name != "none"]
    forms = list(dict.fromkeys(row["form"] for row in rows))
    with theme():
        figure = new_figure(PAGE, 1.2 + 0.45 * max(2, len(windows)))
        panels = figure.subplots(1, len(_PANELS), sharey=True)
        for axes, (measure, label) in zip(panels, _PANELS.items(), strict=True):
            for row in rows:
                cell = row[measure]
                if not cell["total"]:
                    continue
                pictured = row["form"] == "pictures"
                if row["window"] == "none":
                    axes.axvline(100 * cell["value"], color=NEUTRAL, lw=0.8, ls="-" if pictured else ":", zorder=1)
                    continue
                y = windows.index(row["window"]) + (_OFFSET[row["form"]] if len(forms) > 1 else 0.0)
                colour = ROLE_COLOURS.get(row["window"], NEUTRAL)
                value = 100 * cell["value"]
                low, high = (value if cell[name] is None else 100 * cell[name] for name in ("low", "high"))
                axes.errorbar(
                    value,
                    y,
                    xerr=[[value - low], [high - value]],
                    fmt="o",
                    ms=5,
                    color=colour,
                    mfc=colour if pictured else "white",
                    elinewidth=0.9,
                    zorder=3,
                )
                axes.scatter([100 * v for v in cell["seeds"]], [y] * len(cell["seeds"]), s=5, color=colour, alpha=0.5)
            axes.set_xlabel(label)
            axes.set_xlim(-3, 103)
            axes.grid(True, axis="x")
        blocks = {row["window"]: row["blocks"] for row in rows}
        panels[0].set_yticks(range(len(windows)), [f"{name}\nblocks {blocks[name]}" for name in windows])
        panels[0].set_ylim(-0.6, len(windows) - 0.4)
        marks = "open: in words; filled: with pictures" if len(forms) > 1 else f"asked {_ASKED[forms[0]]}"
        line = "lines" if len(forms) > 1 else "line"
        figure.suptitle(title or f"One training, several places ({marks}; {line}: the base)", fontsize=8.5)
        return figure
