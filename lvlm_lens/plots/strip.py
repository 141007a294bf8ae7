"""A strip of scatter plots: how the representations of harmful and harmless items part, block by block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from .theme import PAGE, SAFE, UNSAFE, headline, new_figure, theme


def two_dimensions(states: np.ndarray) -> np.ndarray:
    """First two principal components of ``[n, d]``, ``[n, 2]``: no label is used, so no separation is made."""
    centred = states.astype(np.float64) - states.mean(0, dtype=np.float64)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    flat = left[:, :2] * values[:2]
    flat *= np.sign(flat[np.abs(flat).argmax(0), np.arange(flat.shape[1])])  # the sign of a component is arbitrary
    return flat


def aligned_planes(states: Sequence[np.ndarray]) -> list[np.ndarray]:
    """:func:`two_dimensions` of each block, each plane turned or mirrored to fit the one before.

    Sign and order of principal components are arbitrary, so without this the clouds flip from block to block.  The turn
    is the orthogonal Procrustes solution of the standardised planes; distances within a plane are untouched.

    Args:
        states: ``[n, d]`` a block, the same items in the same order.
    """
    from scipy.linalg import orthogonal_procrustes

    planes: list[np.ndarray] = []
    for block in states:
        plane = two_dimensions(block)
        if planes:
            before, here = planes[-1], plane
            scale_before, scale_here = (np.linalg.norm(each) or 1.0 for each in (before, here))
            turn, _ = orthogonal_procrustes(here / scale_here, before / scale_before)
            plane = plane @ turn
        planes.append(plane)
    return planes


def choose_blocks(blocks: Sequence[int], most: int = 12) -> list[int]:
    """At most ``most`` blocks, evenly spaced, first and last included."""
    if len(blocks) <= most:
        return list(blocks)
    return [blocks[round(at)] for at in np.linspace(0, len(blocks) - 1, most)]


def plot_strip(points: dict[int, np.ndarray], labels: np.ndarray, aurocs: dict[int, float], title: str = "") -> Figure:
    """Principal components of resid_post for some blocks.

    Args:
        points: block to ``[n, 2]`` from :func:`two_dimensions`.
        labels: ``[n]``, 1 harmful, 0 harmless.
        aurocs: block to the out-of-fold probe AUROC on the full representation, written in the corner.
    """
    blocks = list(points)
    columns = min(6, len(blocks))
    rows = -(-len(blocks) // columns)
    with theme():
        figure = new_figure(PAGE, 1.35 * rows + 0.55)
        grid = figure.subplots(rows, columns, squeeze=False)
        for cell in grid.flat[len(blocks) :]:
            cell.set_visible(False)
        order = np.random.default_rng(0).permutation(len(labels))  # neither colour always on top
        colours = np.where(labels == 1, UNSAFE, SAFE)
        for cell, block in zip(grid.flat, blocks, strict=False):
            xy = points[block][order]
            cell.scatter(xy[:, 0], xy[:, 1], s=3, c=colours[order], alpha=0.55, lw=0, rasterized=True)
            cell.set_title(f"block {block}", fontsize=7, pad=2, weight="normal")
            cell.text(0.97, 0.03, f"{aurocs[block]:.2f}", transform=cell.transAxes, ha="right", fontsize=6.5)
            cell.set_xticks([])
            cell.set_yticks([])
            cell.grid(False)
        for label, colour in (("harmful", UNSAFE), ("harmless", SAFE)):
            grid[0, 0].scatter([], [], s=14, c=colour, label=label)
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        headline(
            figure,
            title or "First two principal components by block, turned to fit (corner: AUROC of the linear probe)",
        )
    return figure
