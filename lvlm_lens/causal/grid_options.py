"""What a patch grid is made of: the arguments of :func:`~.patch_grid.patch_grid` that decide its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..models.positions import Positions
from .metrics import LogitsFunction, Metric
from .nulls import NULLS


def wave_tokens(device: str) -> int:
    """Tokens of one wave of cells.  A processor is no faster with more of them, and each takes memory."""
    return 16384 if device.startswith("cuda") else 4096


@dataclass(frozen=True)
class GridOptions:
    """Cells, metric and nulls of a grid; each is explained at :func:`~.patch_grid.patch_grid`."""

    sites: str | Sequence[str] = "resid_post"
    positions: str | Positions | Sequence[str] | Mapping[str, str] = "last"
    metric: str | LogitsFunction | Metric = "refusal_log_odds"
    direction: Literal["denoise", "noise", "both"] = "both"
    per: Literal["position", "span"] = "position"
    window: int = 1
    heads: Literal["all", "each"] = "all"
    exact: Literal["auto", "full"] = "auto"
    null: int = 1
    nulls: Sequence[str] = NULLS
    batch_size: int | None = None
    max_tokens: int | None = None
    seed: int = 0
