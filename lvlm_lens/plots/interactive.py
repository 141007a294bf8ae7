"""The atlas for the screen: one self-contained page in which every curve can be hovered, hidden and zoomed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..locate.roles import LayerRoles
from ..stats.curve import Curve
from .theme import BASELINE_COLOURS, BASELINE_TITLES, NEUTRAL, ROLE_COLOURS, ROLE_TITLES


def _faded(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def interactive_atlas(curves: Mapping[str, Curve], roles: LayerRoles, title: str = "") -> Any:
    """A plotly figure: role curves with intervals, their baselines (hidden until clicked), and the ranges found."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name in ("perception", "semantics", "expression"):
        if name not in curves:
            continue
        curve, colour = curves[name], ROLE_COLOURS[name]
        blocks = list(curve.blocks)
        figure.add_trace(
            go.Scatter(
                x=blocks + blocks[::-1],
                y=[*curve.high.tolist(), *curve.low.tolist()[::-1]],
                fill="toself", fillcolor=_faded(colour, 0.15), line={"width": 0}, hoverinfo="skip",
                legendgroup=name, showlegend=False,
            )
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=blocks, y=curve.value.tolist(), mode="lines+markers", name=ROLE_TITLES[name],
                line={"color": colour, "width": 2.5}, legendgroup=name,
                customdata=list(zip(curve.low.tolist(), curve.high.tolist(), strict=True)),
                hovertemplate="block %{x}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
                f"<extra>{name}</extra>",
            )
        )  # fmt: skip
        if curve.null is not None:
            figure.add_trace(
                go.Scatter(
                    x=blocks, y=curve.null.tolist(), name=f"{name}: shuffled labels (95 %)", visible="legendonly",
                    line={"color": NEUTRAL, "dash": "dot"},
                )
            )  # fmt: skip
        for key, baseline in curve.baselines.items():
            by_block = baseline.on(len(curve))
            figure.add_trace(
                go.Scatter(
                    x=blocks, y=np.asarray(by_block.value).tolist(), name=f"{name}: {BASELINE_TITLES.get(key, key)}",
                    visible="legendonly", line={"color": BASELINE_COLOURS.get(key, NEUTRAL), "dash": "dash"},
                )
            )  # fmt: skip
        role = roles[name]
        if role.found and role.range is not None:
            figure.add_vrect(
                x0=role.range[0] - 0.4, x1=role.range[1] + 0.4, fillcolor=colour, opacity=0.08, line_width=0,
                annotation_text=name, annotation_position="top left",
            )  # fmt: skip
    figure.update_layout(
        title=title, template="plotly_white", xaxis_title="decoder block",
        yaxis_title="AUROC, harmful against harmless",
        hovermode="closest", legend={"orientation": "h", "y": -0.2},
    )  # fmt: skip
    return figure


def save_interactive(figure: Any, folder: Path | str, name: str) -> str:
    """Write a plotly figure as one self-contained HTML file (its script included); returns the file name."""
    figure.write_html(Path(folder) / f"{name}.html", include_plotlyjs=True, full_html=True)
    return f"{name}.html"
