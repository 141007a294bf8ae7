"""Figures of the patch grid, of SASA, and of the defence table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..causal import PatchGrid
from ..defenses.sasa_report import SASAReport
from ..evaluate.evaluation import EvaluationResult


def draw_grid(
    folder: Path, n_blocks: int, grid: PatchGrid, pictures: Sequence[tuple[Any, Any, Any, str]]
) -> list[dict[str, str]]:
    """The patch grid, also as a page, and single image tokens over pictures.

    Args:
        folder: where figures go.
        n_blocks: depth of the model.
        grid: to draw.
        pictures: pairs of pictures, the effect of each token ``[block, side, side]``, and a caption; may be empty.
    """
    from ..plots.interactive import save_interactive
    from ..plots.patching import plot_patch_grid, plot_patches_on_picture
    from ..plots.patching_interactive import interactive_patch_grid

    caption = (
        f"Patching what enters each block in {len(grid.pairs)} matched pairs, by block and position, both ways; "
        "greyed cells do not survive the control for many tests (family-wise)."
    )
    drawn = [("patching", caption, plot_patch_grid(grid, n_blocks))]
    if pictures:
        places = telling_blocks([effect for _, _, effect, _ in pictures])
        shown = [grid.blocks[at] for at in places]
        chosen = [(a, b, effect[places], text) for a, b, effect, text in pictures]
        caption = "Single image tokens patched before a block (denoising), laid over the pictures of three pairs."
        drawn.append(("patching_picture", caption, plot_patches_on_picture(chosen, shown)))
    made = _saved(folder, drawn)
    made[0]["html"] = save_interactive(interactive_patch_grid(grid), folder, "patching")
    return made


def draw_sasa(folder: Path, n_blocks: int, report: SASAReport) -> list[dict[str, str]]:
    """SASA's gain over its map of blocks, its controls, and its label efficiency."""
    from ..plots.sasa import plot_controls, plot_gain_map, plot_label_efficiency

    drawn = [
        ("sasa_map", report.verdict, plot_gain_map(report.map["cells"], n_blocks)),
        ("sasa_controls", "SASA beside its controls; dashed: the same probe without projection.",
         plot_controls(report.controls)),
        ("sasa_labels", "AUROC by training size with and without projection.",
         plot_label_efficiency(report.label_efficiency)),
    ]  # fmt: skip
    return _saved(folder, drawn)


def _saved(folder: Path, drawn: Sequence[tuple[str, str, Any]]) -> list[dict[str, str]]:
    from ..plots.theme import save_figure

    made = []
    for name, caption, figure in drawn:
        png, svg = save_figure(figure, folder, name)
        made.append({"name": name, "png": png, "svg": svg, "caption": caption})
    return made


def telling_blocks(effects: list[Any]) -> list[int]:
    """Places of three blocks that show how the picture's part ends: the first, the last at which single tokens still
    carry a tenth of their largest mean effect, and the one between.

    Args:
        effects: ``[block, side, side]`` a pair.
    """
    import numpy as np

    by_block = np.mean([np.abs(effect).mean((1, 2)) for effect in effects], axis=0)
    last = int(np.flatnonzero(by_block >= 0.1 * by_block.max())[-1])
    last = min(max(last, 2), len(by_block) - 1)
    return sorted({0, last // 2, last})


def draw_defenses(folder: Path, table: EvaluationResult | None) -> list[dict[str, str]]:
    """The defence plane, where a table was made."""
    from ..plots.defenses import defense_plane
    from ..plots.theme import save_figure

    if table is None:
        return []
    png, svg = save_figure(defense_plane(table.plane()), folder, "defense_plane")
    caption = (
        f"Attack success against over-refusal of {len(table.rows)} systems on {table.setting['n_test']} requests, "
        "with 95 % intervals; the size of a mark is its cost in forwards per query."
    )
    return [{"name": "defense_plane", "png": png, "svg": svg, "caption": caption}]
