"""What measures that edit the model's forward share: a few items, half of them harmful, and curves of effects."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError
from ..stats.curve import Curve
from .mean_effect import MeanEffect
from .study import Study

ITEMS = 32
"""Items that the forwards of a measure run on."""


def halves(study: Study, among: np.ndarray | None = None, count: int = ITEMS) -> np.ndarray:
    """Rows: ``count`` items, half of them harmful; ``among`` is a bool mask of the rows allowed."""
    allowed = np.ones(len(study.labels), dtype=bool) if among is None else among
    parts = [study.some(np.flatnonzero(allowed & (study.labels == kind)), count // 2) for kind in (1, 0)]
    if min(map(len, parts)) < 4:
        counts = f"{len(parts[0])} harmful and {len(parts[1])} harmless items"
        raise DataError(f"{counts} that can be used; at least 4 of each are needed")
    return np.concatenate(parts)


def effect_curve(study: Study, values: np.ndarray, groups: np.ndarray, unit: str) -> Curve:
    """Curve of per-sample effects ``[sample, block]`` (block by block of the study)."""
    return MeanEffect(unit, **study.draws).fit(values[:, :, None], None, groups).curve_


def progress_of(study: Study, name: str) -> Any:
    """Progress callback ``(done, all)`` under a name."""
    return lambda done, total: study.progress(name, done, total)
