"""The two pieces of statistics that every room needs: an interval for a share, and control of many tests.

Both are SciPy's; this module only fixes what happens at the edges, so that all rooms agree on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def wilson_bounds(successes: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (Wilson 1927) of ``successes`` in ``total`` trials; NaN where there are none."""
    from scipy.stats import binomtest

    if not total:
        return float("nan"), float("nan")
    bounds = binomtest(int(successes), int(total)).proportion_ci(level, method="wilson")
    return float(bounds.low), float(bounds.high)


def false_discovery(p_values: Any) -> np.ndarray:
    """Adjusted p-values of the same shape (Benjamini and Hochberg 1995), for independent or positively dependent tests.

    For a few tests of different kinds; cells of one grid have :func:`lvlm_lens.stats.maxt.max_t`.  NaN stays NaN and is
    not counted as a test.
    """
    from scipy.stats import false_discovery_control

    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    there = np.isfinite(p)
    if there.any():
        adjusted[there] = false_discovery_control(p[there])
    return adjusted


def share(count: int, total: int) -> dict[str, float | int | None]:
    """A proportion with its Wilson 95 % interval (``None`` where there is nothing to count)."""
    if not total:
        return {"count": 0, "n": 0, "value": None, "low": None, "high": None}
    low, high = wilson_bounds(count, total)
    return {"count": count, "n": total, "value": count / total, "low": low, "high": high}
