"""SASA: what the projection gains over the same probe without it, where, and against its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .theme import NEUTRAL, PAGE, ROLE_COLOURS, block_axis, headline, ink_on, new_figure, theme


def plot_gain_map(cells: Sequence[Mapping[str, Any]], n_blocks: int, title: str = "") -> Figure:
    """The s x f map: AUROC gained over the same probe without projection; cells that survive are framed.

    Args:
        cells: rows with ``safety``, ``fused``, ``gain`` and ``p_adjusted``, as ``gain_map`` makes them.
    """
    with theme():
        figure = new_figure(PAGE, 3.0)
        axes = figure.subplots()
        blocks_s = sorted({cell["safety"] for cell in cells})
        blocks_f = sorted({cell["fused"] for cell in cells})
        values = np.full((len(blocks_s), len(blocks_f)), np.nan)
        for cell in cells:
            values[blocks_s.index(cell["safety"]), blocks_f.index(cell["fused"])] = cell["gain"]
        top = max(0.02, float(np.nanmax(np.abs(values))))
        image = axes.imshow(values, cmap="PuOr_r", vmin=-top, vmax=top, origin="lower", aspect="auto")
        for cell in cells:
            y, x = blocks_s.index(cell["safety"]), blocks_f.index(cell["fused"])
            ink = ink_on(tuple(image.cmap(image.norm(cell["gain"]))))  # type: ignore[arg-type]
            axes.text(x, y, _signed(cell["gain"]), ha="center", va="center", fontsize=7, color=ink)
            if cell["p_adjusted"] <= 0.05:
                axes.add_patch(_frame(x, y))
        axes.set_xticks(range(len(blocks_f)), [str(b) for b in blocks_f])
        axes.set_yticks(range(len(blocks_s)), [str(b) for b in blocks_s])
        axes.set_xlabel("fused block f")
        axes.set_ylabel("safety block s")
        axes.grid(False)
        axes.set_title(title or "AUROC gained by projecting f onto s")
        bar = figure.colorbar(image, ax=axes, shrink=0.8)
        bar.set_label("gain over no projection (framed: p <= .05 over the map)", fontsize=6.5)
        bar.ax.tick_params(labelsize=6.5)
    return figure


def _signed(value: float) -> str:
    """Two digits with the sign; what rounds to nothing has none."""
    return "0.00" if round(value, 2) == 0 else f"{value:+.2f}"


def _frame(x: int, y: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, fill=False, ec="black", lw=1.2)


def plot_controls(controls: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """AUROC of SASA, of the same probe without projection, and of every control, with 95 % intervals."""
    rows = sorted(controls, key=lambda row: row["auroc"])
    with theme():
        figure = new_figure(PAGE, 0.24 * len(rows) + 0.9)
        axes = figure.subplots()
        for y, row in enumerate(rows):
            colour = {"sasa": ROLE_COLOURS["semantics"], "no_projection": "black"}.get(row["name"], NEUTRAL)
            axes.plot([row["low"], row["high"]], [y, y], color=colour, lw=1.4)
            axes.plot(row["auroc"], y, "o", color=colour, ms=4)
        reference = next((row["auroc"] for row in rows if row["name"] == "no_projection"), None)
        if reference is not None:
            axes.axvline(reference, color="black", lw=0.8, ls=(0, (3, 2)))
        axes.set_yticks(range(len(rows)), [row["name"].replace("_", " ") for row in rows])
        axes.set_xlabel("AUROC on the test part")
        axes.grid(axis="x")
        axes.set_title(title or "SASA and its controls (dashed: no projection)")
    return figure


def plot_label_efficiency(rows: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """AUROC against training size, with and without projection (95 % intervals over seeds and groups)."""
    with theme():
        figure = new_figure(PAGE, 2.5)
        axes = figure.subplots()
        sizes = [row["size"] for row in rows]
        for key, colour, label in (
            ("sasa", ROLE_COLOURS["semantics"], "with projection"),
            ("plain", "black", "without"),
        ):
            axes.fill_between(
                sizes,
                [row[key]["low"] for row in rows],
                [row[key]["high"] for row in rows],
                color=colour,
                alpha=0.15,
                lw=0,
            )
            axes.plot(sizes, [row[key]["auroc"] for row in rows], "o-", ms=3, color=colour, label=label)
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("training samples")
        axes.set_ylabel("AUROC on the test part")
        axes.legend(loc="lower right")
        axes.set_title(title or "Label efficiency of the probe")
    return figure


def plot_patching_change(report: Mapping[str, Any], n_blocks: int, title: str = "") -> Figure:
    """Patch grids of the plain and of the projected network and their difference, in nats of the metric.

    Args:
        report: what :func:`~lvlm_lens.defenses.sasa_patching.patching_report` summarises; cells of the difference
            whose 95 % interval leaves out 0 are framed.
        n_blocks: depth of the model.
    """
    cells = list(report["cells"])
    directions = list(dict.fromkeys(cell["direction"] for cell in cells))
    positions = list(dict.fromkeys(cell["position"] for cell in cells))
    blocks = sorted({cell["block"] for cell in cells})
    top = max(1e-6, max(abs(cell[key]) for cell in cells for key in ("plain", "projected", "difference")))
    with theme():
        figure = new_figure(PAGE, (0.26 * len(positions) + 0.75) * len(directions) + 0.5)
        panels = figure.subplots(len(directions), 3, sharey=True, squeeze=False)
        image = None
        for row, direction in enumerate(directions):
            for at, key in enumerate(("plain", "projected", "difference")):
                axes = panels[row, at]
                values = np.full((len(positions), len(blocks)), np.nan)
                for cell in cells:
                    if cell["direction"] == direction:
                        y, x = positions.index(cell["position"]), blocks.index(cell["block"])
                        values[y, x] = cell[key]
                        if key == "difference" and (cell["low"] > 0 or cell["high"] < 0):
                            axes.add_patch(_frame(cell["block"], y))
                extent = (blocks[0] - 0.5, blocks[-1] + 0.5, len(positions) - 0.5, -0.5)
                image = axes.imshow(values, cmap="PuOr_r", vmin=-top, vmax=top, aspect="auto", extent=extent)
                axes.set_yticks(range(len(positions)), positions)
                axes.set_title(f"{direction}: {key}", fontsize=7.5, pad=14)
                axes.grid(False)
                block_axis(axes, blocks, n_blocks)
                axes.set_xticks(blocks[:: max(1, round(len(blocks) / 6))])  # a third of the page has room for no more
        assert image is not None
        bar = figure.colorbar(image, ax=list(panels.ravel()), shrink=0.85, pad=0.01)
        bar.set_label("change of the refusal log-odds (nats)", fontsize=7)
        bar.ax.tick_params(labelsize=6.5)
        headline(figure, title or f"Patching before and after the projection, {report['pairs']} pairs")
    return figure
