"""What is refused, and what is perceived, by quadrant of image, text and joint label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .theme import NEUTRAL, PAGE, ROLE_COLOURS, ROLE_INK, new_figure, theme


def _bars(
    axes: Axes, at: np.ndarray, width: float, cells: Sequence[Mapping[str, Any]], colour: str, label: str
) -> None:
    value = np.asarray([np.nan if cell["value"] is None else cell["value"] for cell in cells], dtype=float) * 100
    low = np.asarray([np.nan if cell["low"] is None else cell["low"] for cell in cells], dtype=float) * 100
    high = np.asarray([np.nan if cell["high"] is None else cell["high"] for cell in cells], dtype=float) * 100
    axes.bar(at, value, width, color=colour, label=label, alpha=0.9, lw=0)
    axes.errorbar(
        at, value, yerr=[np.maximum(value - low, 0), np.maximum(high - value, 0)], fmt="none", ecolor="black",
        elinewidth=0.8, capsize=1.8,
    )  # fmt: skip


def _words(quadrant: str) -> str:
    """``SSU`` as words, a line each: what the picture, the words, and both together are."""
    said = {"S": "safe", "U": "unsafe", "N": "none"}
    parts = zip(("picture", "words", "together"), quadrant, strict=False)
    return "\n".join(f"{part} {said.get(letter, 'unknown')}" for part, letter in parts)


def plot_quadrants(
    lvlm: Sequence[Mapping[str, Any]],
    backbone: Sequence[Mapping[str, Any]] | None = None,
    title: str = "",
    in_words: str = "backbone",
) -> Figure:
    """Share refused (95 % Wilson intervals) by quadrant, for the model, and for its language-only backbone on
    the same items said in words; beside it what the probe perceives.

    Args:
        lvlm, backbone: rows of :attr:`~lvlm_lens.locate.locating.Located.quadrants`; the backbone's rows
            stand under the quadrant of the item with its picture.
        in_words: who read the items in words: ``backbone`` or ``lvlm_in_words``.
    """
    names = [row["quadrant"] for row in lvlm]
    at = np.arange(len(names), dtype=float)
    with theme():
        figure = new_figure(PAGE, 3.0)
        axes = figure.subplots()
        bars: list[tuple[str, str, list[Mapping[str, Any]]]] = [
            ("perceived by the probe (LVLM)", ROLE_COLOURS["perception"], [row["perceived"] for row in lvlm]),
            ("refused by the LVLM", "#222222", [row["refused"] for row in lvlm]),
        ]
        if backbone is not None:
            by_name = {row["quadrant"]: row["refused"] for row in backbone}
            empty = {"value": None, "low": None, "high": None}
            reader = "the backbone" if in_words == "backbone" else "the LVLM"
            bars.append((f"refused by {reader}, in words", "#999999", [by_name.get(name, empty) for name in names]))
        width = 0.8 / len(bars)
        for number, (label, colour, cells) in enumerate(bars):
            _bars(axes, at + (number - (len(bars) - 1) / 2) * width, width * 0.94, cells, colour, label)
        axes.set_xticks(at, [f"{_words(row['quadrant'])}\nn = {row['n']}" for row in lvlm], fontsize=6.5)
        for tick, name in zip(axes.get_xticklabels(), names, strict=True):
            tick.set_color(ROLE_INK["perception"] if name.endswith("U") else NEUTRAL)
        axes.set_xlabel("what is unsafe in the items; those that are harmful as a whole in colour")
        axes.set_ylabel("share of items (%)")
        axes.set_ylim(0, 104)
        axes.set_title(title or "Perceived, and refused")
        figure.legend(loc="outside lower center", ncols=3)
    return figure
