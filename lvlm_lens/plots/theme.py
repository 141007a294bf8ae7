"""One look for every figure: sizes of a journal page, colours that colour-blind readers tell apart.

Colours are Okabe and Ito's (2008).  A role keeps its colour in every figure; nulls and baselines
are grey or dashed, so that a finding is never confused with what it has to beat.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..depth import block_at_depth, relative_depth
from ..storage.commit import replacing

ROLE_COLOURS = {"perception": "#D55E00", "semantics": "#0072B2", "expression": "#009E73"}
ROLE_INK = {"perception": "#A84600", "semantics": "#005C94", "expression": "#00684D"}
"""The same colours, dark enough for words on white."""
ROLE_TITLES = {
    "perception": "Safety perception",
    "semantics": "Semantic understanding",
    "expression": "Alignment for linguistic expression",
}
BASELINE_COLOURS = {
    "text_only": "#CC79A7",
    "image_only": "#E69F00",
    "nuisance": "#A6761D",
    "input_embedding": "#56B4E9",
    "random_twin": "#555555",
    "random_features": "#999999",
}
BASELINE_TITLES = {
    "text_only": "words only",
    "image_only": "picture only",
    "nuisance": "length, size, brightness",
    "input_embedding": "input embeddings",
    "random_twin": "random-weight twin",
    "random_features": "random features",
}
SAFE, UNSAFE, NEUTRAL = "#0072B2", "#D55E00", "#696969"
PAGE = 7.0
"""Width of every figure in inches: a page's, so that words are of one size wherever figures stand together."""

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.dpi": 110,
    "savefig.dpi": 220,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "lvlm-lens",  # the same figure gives the same file
    "pdf.fonttype": 42,
}


@contextmanager
def theme() -> Iterator[None]:
    """Draw with the project's style inside the block; the user's own style is untouched outside."""
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        yield


def ink_on(colour: Sequence[float]) -> str:
    """Black or white, whichever is easier to read on a colour (``r, g, b`` in 0 to 1; WCAG's relative luminance)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3])
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


class PaperFigure(Figure):
    """A figure that shows itself in a notebook, without pyplot and without a magic word."""

    def _repr_png_(self) -> bytes:
        held = io.BytesIO()
        with theme():
            self.savefig(held, format="png", dpi=100)
        return held.getvalue()


def new_figure(width: float = PAGE, height: float = 2.4) -> Figure:
    """An empty figure that no window manager holds (safe in loops, threads and notebooks)."""
    return PaperFigure(figsize=(width, height))


def headline(figure: Figure, words: str, size: float = 8.5) -> None:
    """What a figure of several panels says, above them on the left."""
    figure.suptitle(words, fontsize=size, weight="bold", x=0.01, ha="left")


def block_axis(axes: Axes, blocks: Sequence[int], n_blocks: int, depth_axis: bool = True) -> None:
    """Label the horizontal axis with block numbers below and relative depth in per cent above."""
    axes.set_xlim(blocks[0] - 0.5, blocks[-1] + 0.5)
    step = max(1, round(len(blocks) / 12))
    axes.set_xticks(list(blocks)[::step])
    axes.set_xlabel("decoder block")
    if not depth_axis:
        return
    above = axes.secondary_xaxis(
        "top",
        functions=(
            lambda block: 100 * relative_depth(block, n_blocks),
            lambda percent: block_at_depth(np.asarray(percent) / 100, n_blocks),
        ),
    )
    above.set_xlabel("relative depth (%)", fontsize=7, labelpad=2)
    above.tick_params(labelsize=6.5, length=2, pad=1)
    above.spines["top"].set_visible(True)
    above.spines["top"].set_color("#BBBBBB")


def save_figure(figure: Figure, folder: Path | str, name: str) -> list[str]:
    """Write ``name.png`` and ``name.svg`` into a folder; returns the two file names."""
    folder = Path(folder)
    files = []
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        with theme(), replacing(folder / f"{name}.{kind}") as beside:
            figure.savefig(beside, format=kind, metadata=metadata)
        figure.set_layout_engine("none")  # laid out once: the second format keeps it
        files.append(f"{name}.{kind}")
    return files
