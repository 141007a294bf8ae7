"""The figure of the log: joint harm and harm in the words alone, by block."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lvlm_lens.locate.roles import Role
from lvlm_lens.plots.curves import plot_curve
from lvlm_lens.plots.theme import save_figure
from lvlm_lens.stats.curve import Curve


def draw_figure(found: Mapping[str, Any], folder: Path) -> list[str]:
    """Write ``mini_depth.png`` and ``.svg`` of measured figures; returns the files' names."""
    joint, words = (Curve.from_dict(found[part]["curves"]["perception"]) for part in ("joint", "words"))
    figure = plot_curve(
        joint,
        found["blocks"],
        Role.from_dict(found["joint"]["roles"]["perception"]),
        f"Harm of picture and plan together, {found['split']} split",
        others={"harm in the words alone": words},
    )
    return save_figure(figure, folder, "mini_depth")
