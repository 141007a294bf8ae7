"""What a figure says, read from its artists: words that leave the paper, cover each other, or are too faint to read."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from lvlm_lens.plots.theme import theme


def _luminance(rgb):
    rgb = np.asarray(rgb, dtype=float)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def problems(figure: Figure) -> list[str]:
    """One line a problem; empty where every word can be read."""
    with theme():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        hidden = _never_drawn(figure)
        words = [
            (text, Text.get_window_extent(text, renderer))  # an annotation would count its arrow too
            for text in figure.findobj(Text)
            if text.get_visible() and text.get_text().strip() and id(text) not in hidden
        ]
        for text, _ in words:
            text.set_alpha(0)
        canvas.draw()  # the same figure without its words: what stands behind them
        behind = np.asarray(canvas.buffer_rgba())[..., :3] / 255.0
        for text, _ in words:
            text.set_alpha(None)
    found = []
    paper = figure.bbox
    for number, (text, box) in enumerate(words):
        said = text.get_text().replace("\n", " / ")[:60]
        if box.x0 < -1 or box.y0 < -1 or box.x1 > paper.x1 + 1 or box.y1 > paper.y1 + 1:
            found.append(f"outside the figure: {said!r}")
        for other, other_box in words[number + 1 :]:
            both = Bbox.intersection(box, other_box)
            if both is not None and both.width > 1.5 and both.height > 2.5:
                found.append(f"covers: {said!r} and {other.get_text()[:60]!r}")
        height = behind.shape[0]
        rows = slice(max(0, int(height - box.y1)), max(1, int(height - box.y0)))
        patch = behind[rows, max(0, int(box.x0)) : max(1, int(box.x1))]
        if patch.size:
            back = _luminance(np.median(patch.reshape(-1, 3), axis=0))
            ink = _luminance(to_rgb(text.get_color()))
            contrast = (max(back, ink) + 0.05) / (min(back, ink) + 0.05)
            if contrast < 4.5:
                found.append(f"contrast {contrast:.1f}: {said!r}")
    return found


def _never_drawn(figure: Figure) -> set[int]:
    """Labels of ticks outside the view are artists that matplotlib never draws."""
    hidden: set[int] = set()
    everything = [*figure.axes, *(child for axes in figure.axes for child in axes.child_axes)]
    for axes in everything:
        for axis, view in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            low, high = sorted(view)
            slack = 1e-6 * (high - low)
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not axes.get_visible() or not low - slack <= tick.get_loc() <= high + slack:
                    hidden |= {id(tick.label1), id(tick.label2)}
    return hidden
