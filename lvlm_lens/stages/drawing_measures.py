"""Figures of the measures that were asked for: head map, knockout flow, robustness."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .findings import Findings


def draw_measures(folder: Path, n_blocks: int, findings: Findings) -> list[dict[str, str]]:
    """Draw what was measured; returns name, files and caption of each figure."""
    from ..plots.flow import plot_flow
    from ..plots.heads import plot_head_map
    from ..plots.robustness import plot_robustness
    from ..plots.theme import save_figure

    def marked(name: str) -> str:
        missed = findings.standing.get(name) == "missed"
        return " This measure misses its targets on constructed models (×)." if missed else ""

    def title(name: str, words: str) -> str:
        return words + (" ×" if findings.standing.get(name) == "missed" else "")

    drawn: list[tuple[str, str, Callable[[], Any]]] = []
    heads, flow = findings.measured.get("head_attribution"), findings.measured.get("knockout_flow")
    if heads is not None:
        caption = "Attention heads switched off one at a time; rings: the largest contrasts."
        words = title("head_attribution", "Attention heads switched off, one at a time")
        drawn.append(("heads", caption + marked("head_attribution"), partial(plot_head_map, heads.tables, words)))
    if flow is not None:
        names = [str(flow.tables["main"]), *flow.others]
        curves = dict(zip(names, (flow.curve, *flow.others.values()), strict=True))
        shown = {name.removeprefix("flow_").replace("_", " "): curve for name, curve in curves.items()}
        width = int(flow.tables["width"])
        caption = f"Answer lost when a flow of attention is blocked in {width} blocks around a block."
        words = title("knockout_flow", f"Blocked attention, windows of {width} blocks")
        drawn.append(
            ("knockout_flow", caption + marked("knockout_flow"), partial(plot_flow, shown, n_blocks, width, words))
        )
    if findings.robustness.get("done") and findings.robustness["tables"]:
        caption = "Onset of each role with other samples, seeds, positions, templates and pooling."
        drawn.append(("robustness", caption, lambda: plot_robustness(findings.robustness["tables"], n_blocks)))
    made = []
    for name, caption, draw in drawn:
        png, svg = save_figure(draw(), folder, name)
        made.append({"name": name, "png": png, "svg": svg, "caption": caption})
    return made
