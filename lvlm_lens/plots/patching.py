"""Patch grids: block x position, denoising beside noising, and the picture's patches over the picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from ..causal.grid import PatchGrid
from ..stats.maxt import fewest_groups
from .theme import NEUTRAL, PAGE, block_axis, headline, new_figure, theme

_GREY = "#E4E4E4"
_TITLES = {
    "denoise": "Denoising: refused into answered (sufficient)",
    "noise": "Noising: answered into refused (necessary)",
}


def plot_patch_grid(
    grid: PatchGrid, n_blocks: int, site: str | None = None, level: float = 0.05, title: str = ""
) -> Figure:
    """Effect by block and position, one panel a direction.

    0: as without the patch; 1: the patch alone makes the prompt behave as its donor.  Cells that do not beat 0 and
    every null at a family-wise level over the grid are plain grey, so that no colour stands where nothing is shown; the
    others are framed, so that an effect near 0 that survives does not look like an empty cell.
    """
    site = grid.sites[0] if site is None else site
    table = grid.summary(level)
    table = table[table["site"] == site]
    with theme():
        figure = new_figure(PAGE, 0.24 * len(grid.positions) + 1.5)
        panels = figure.subplots(1, len(grid.directions), sharey=True, squeeze=False)[0]
        top = max(1.0, float(np.nanmax(np.abs(table["effect"].to_numpy()))))
        colours = mpl.colormaps["PuOr_r"].copy()
        image, survivors = None, 0
        for axes, direction in zip(panels, grid.directions, strict=True):
            here = table[table["direction"] == direction]
            effect = here.pivot(index="position", columns="block", values="effect").reindex(list(grid.positions))
            alive = here.pivot(index="position", columns="block", values="survives").reindex(list(grid.positions))
            values = effect.to_numpy(dtype=float)
            extent = (grid.blocks[0] - 0.5, grid.blocks[-1] + 0.5, len(grid.positions) - 0.5, -0.5)
            image = axes.imshow(values, cmap=colours, vmin=-top, vmax=top, aspect="auto", extent=extent)
            lives = alive.to_numpy(dtype=bool)
            image.set_data(np.where(lives, values, np.nan))
            axes.set_facecolor(_GREY)
            for y, x in np.argwhere(lives):
                corner = (grid.blocks[int(x)] - 0.5, int(y) - 0.5)
                axes.add_patch(Rectangle(corner, 1, 1, fill=False, ec="#444444", lw=0.35))
            survivors += int(lives.sum())
            axes.set_yticks(range(len(grid.positions)), grid.positions)
            axes.set_title(_TITLES.get(direction, direction), pad=5, fontsize=7.5)
            axes.grid(False)
            block_axis(axes, grid.blocks, n_blocks)
        assert image is not None
        bar = figure.colorbar(image, ax=list(panels), shrink=0.85, pad=0.01)
        bar.set_label(str(table["unit"].iloc[0]), fontsize=7)
        bar.ax.tick_params(labelsize=6.5)
        found = f"{survivors} of {len(table)} cells survive"
        if not survivors:
            groups, need = len(set(grid.groups)), fewest_groups(level, one_sided=True)
            could = f"{need} are needed" if groups < need else f"{need} could have shown one"
            found = f"none of {len(table)} cells survives ({groups} groups of pairs; {could})"
        headline(figure, title or f"Patching {site}, {len(grid.pairs)} pairs: {found}")
        figure.supxlabel(
            f"grey: does not beat 0 and every null at a family-wise level of {level:g}",
            fontsize=6.5,
            color=NEUTRAL,
            x=0.01,
            ha="left",
        )
    return figure


def plot_patches_on_picture(
    pictures: Sequence[tuple[Image.Image, Image.Image, np.ndarray, str]], blocks: Sequence[int], title: str = ""
) -> Figure:
    """Where in the picture the difference sits: single image tokens patched, laid over the picture they come from.

    Args:
        pictures: for each pair, the clean picture, the corrupted picture, the effect ``[block, side, side]`` of
            denoising each token, and a caption.
        blocks: the blocks of the effect's first axis.
    """
    with theme():
        figure = new_figure(PAGE, 1.32 * len(pictures) + 0.6)
        grid = figure.subplots(len(pictures), 2 + len(blocks), squeeze=False)
        top = max(1e-6, max(float(np.nanmax(np.abs(effect))) for _, _, effect, _ in pictures))
        image = None
        for row, (clean, corrupted, effect, caption) in enumerate(pictures):
            for axes, picture, name in ((grid[row, 0], clean, "clean"), (grid[row, 1], corrupted, "corrupted")):
                axes.imshow(picture)
                axes.set_title(name if row == 0 else "", fontsize=7, weight="normal")
            grid[row, 0].set_ylabel(
                "\n".join(textwrap.wrap(caption, 24)), fontsize=6, rotation=0, ha="right", va="center", labelpad=6
            )
            for at, block in enumerate(blocks):
                axes = grid[row, 2 + at]
                axes.imshow(corrupted.convert("L"), cmap="gray", alpha=0.55, extent=(0, 1, 1, 0))
                image = axes.imshow(
                    effect[at],
                    cmap="PuOr_r",
                    vmin=-top,
                    vmax=top,
                    alpha=0.7,
                    extent=(0, 1, 1, 0),
                    interpolation="nearest",
                )
                axes.set_title(f"block {block}" if row == 0 else "", fontsize=7, weight="normal")
        for axes in grid.flat:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(False)
            for spine in axes.spines.values():
                spine.set_visible(False)
        assert image is not None
        bar = figure.colorbar(image, ax=list(grid[:, 2:].flat), shrink=0.8, pad=0.01)
        bar.set_label("share of the difference", fontsize=7)
        bar.ax.tick_params(labelsize=6.5)
        headline(figure, title or "Single image tokens patched (denoising), over the picture")
    return figure
