"""A patch grid for the screen: every cell can be hovered; site and direction are chosen from a menu."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..causal.grid import PatchGrid


def interactive_patch_grid(grid: PatchGrid, level: float = 0.05, title: str = "") -> Any:
    """A plotly heatmap of effects, block x position; cells that do not survive are greyed.

    One entry of the menu is one site, with its directions side by side.  Hovering shows effect, interval,
    adjusted p-value and the nulls that were beaten.  Saved with ``figure.write_html(path, include_plotlyjs=True)``
    it is one self-contained page.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    table = grid.summary(level)
    shape = (len(grid.directions), len(grid.sites), len(grid.blocks), len(grid.positions))

    def array(name: str) -> np.ndarray:
        return table[name].to_numpy().reshape(shape)

    effect, alive = array("effect").astype(float), array("survives").astype(bool)
    details = np.stack([array(n) for n in ("low", "high", "p_adjusted", "beaten")], -1)
    unit = str(table["unit"].iloc[0]).replace(" of the ", " of<br>the ")
    top = max(1.0, float(np.nanmax(np.abs(effect)))) if np.isfinite(effect).any() else 1.0
    figure = make_subplots(1, len(grid.directions), shared_yaxes=True, subplot_titles=list(grid.directions))
    blocks, positions = list(grid.blocks), list(grid.positions)
    for s in range(len(grid.sites)):
        for d in range(len(grid.directions)):
            common = {"x": blocks, "y": positions, "visible": s == 0}
            figure.add_trace(
                go.Heatmap(
                    z=effect[d, s].T, customdata=details[d, s].transpose(1, 0, 2), zmin=-top, zmax=top,
                    colorscale="PuOr_r", showscale=d == 0, colorbar={"title": unit},
                    hovertemplate="block %{x}, %{y}: %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<br>"
                    "p %{customdata[2]:.3g}, beats %{customdata[3]}<extra></extra>", **common,
                ),
                row=1, col=d + 1,
            )  # fmt: skip
            grey = np.where(alive[d, s], np.nan, 1.0).T
            figure.add_trace(
                go.Heatmap(
                    z=grey, colorscale=[[0, "#BBBBBB"], [1, "#BBBBBB"]], opacity=0.55, showscale=False,
                    hoverinfo="skip", **common,
                ),
                row=1, col=d + 1,
            )  # fmt: skip
    each = 2 * len(grid.directions)
    buttons = [
        {
            "label": site,
            "method": "update",
            "args": [{"visible": [number // each == s for number in range(each * len(grid.sites))]}],
        }
        for s, site in enumerate(grid.sites)
    ]
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title_text="decoder block", dtick=max(1, round(len(blocks) / 12)))
    figure.update_layout(
        title=title or f"Patching, {len(grid.pairs)} pairs; greyed: does not survive at {level:g}",
        template="plotly_white",
        height=220 + 24 * len(positions),
        updatemenus=[{"buttons": buttons, "x": 1.0, "y": 1.2, "xanchor": "right"}] if len(grid.sites) > 1 else [],
    )
    return figure
