"""Where a strength rises, and which of two rises first, whatever their strengths.

A strength (:mod:`.strength`) is made monotone over the blocks up to the end of its plateau (isotonic least squares).
Its *plateau* is the mean over the blocks that reach 90 % of the fit's top, and the onset at a height ``h`` is where the
fit crosses ``h`` times the plateau, on the scale of d' (``h`` squared on the scale of d' squared), interpolated between
blocks.  Nothing saturates, so a rise has the same onset at every strength; noise is symmetric about it as long as the
strength can be told from zero.

Errors: draws about the monotone fit with the strength's own, refitted, covariance.  Drawn about the noisy estimate
itself, the noise would count twice.

The order of two rises: the difference of the onsets at half height over its error, two-sided, and the differences at a
quarter and at three quarters of the height must have the same sign; two rises of unequal steepness about the same block
cross, and begin in no order.  [own; ``lvlm-lens selftest --audit`` measures level, power and coverage]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .groups import expanded_tail
from .strength import Strength

HEIGHTS = (0.25, 0.5, 0.75)
HALF = HEIGHTS.index(0.5)
FALL = 0.8**2
"""A curve has left its plateau behind the last block with this share of its top (80 % on the scale of d')."""
TOP = 0.9**2
DRAWS = 500


@dataclass(frozen=True)
class Rise:
    """Onsets of one role, as positions in the list of blocks.

    Attributes:
        at: ``[height]``, for :data:`HEIGHTS`; NaN where there is no strength above zero.
        draws: ``[draw, height]``.
        plateau: squared strength.
        peak: position of the largest strength.
        groups: number of independent groups.
    """

    at: np.ndarray
    draws: np.ndarray
    plateau: float
    peak: int
    groups: int

    @property
    def strength(self) -> float:
        """d' on the plateau."""
        return float(np.sqrt(max(self.plateau, 0.0)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the draws: onsets by height, plateau, peak, groups."""
        at = [float(x) if np.isfinite(x) else None for x in self.at]
        plateau = float(self.plateau) if np.isfinite(self.plateau) else None
        return {"heights": list(HEIGHTS), "at": at, "plateau": plateau, "peak": self.peak, "groups": self.groups}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], draws: np.ndarray | None = None) -> Rise:
        """Inverse of :meth:`to_dict`; without draws the interval is not known."""
        at, plateau = (np.asarray(data[key], dtype=np.float64) for key in ("at", "plateau"))
        drawn = np.empty((0, len(HEIGHTS))) if draws is None else np.asarray(draws, dtype=np.float64)
        return cls(at, drawn, float(plateau), int(data["peak"]), int(data["groups"]))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Of the onset at half height; NaN where it is not known."""
        found = self.draws[:, HALF]
        if not np.isfinite(found).any() or not np.isfinite(self.at[HALF]):
            return float("nan"), float("nan")
        found = np.where(np.isfinite(found), found, np.inf)  # a draw without a rise: it begins nowhere
        tail = expanded_tail(self.groups, confidence)
        low, high = np.quantile(found, [tail, 1 - tail], method="inverted_cdf")
        return float(low), float(high)


def crossings(squared: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Onsets ``[curve, height]``, plateaus ``[curve]`` and monotone fits ``[curve, block]`` of ``[curve, block]``."""
    from scipy.optimize import isotonic_regression

    found = np.full((len(squared), len(HEIGHTS)), np.nan)
    plateaus, fits = np.full(len(squared), np.nan), np.empty(squared.shape)
    shares = np.asarray(HEIGHTS) ** 2
    last = squared.shape[1] - 1
    for row, values in enumerate(squared):
        fit = isotonic_regression(values).x
        fits[row] = fit
        plateau = values[int(np.searchsorted(fit, TOP * fit[-1])) :].mean() if fit[-1] > 0 else 0.0
        plateaus[row] = plateau
        if not plateau > 0:
            continue
        for k, target in enumerate(shares * plateau):
            at = min(int(np.searchsorted(fit, target)), last)
            step = fit[at] - fit[at - 1] if at else 0.0
            found[row, k] = at - 1 + (target - fit[at - 1]) / step if step > 0 else float(at)
    return np.clip(found, 0.0, last), plateaus, fits


def end_of_plateau(squared: np.ndarray) -> int:
    """Last position that keeps :data:`FALL` of the largest value, of a curve averaged over an eighth of its blocks."""
    width = max(1, len(squared) // 8)
    padded = np.pad(squared, (width // 2, (width - 1) // 2), mode="edge")
    smooth = np.convolve(padded, np.full(width, 1 / width), "valid")
    if not smooth.max() > 0:
        return len(squared) - 1
    return int(np.flatnonzero(smooth >= FALL * smooth.max())[-1])


def rises(strength: Strength, draws: int = DRAWS, seed: int = 0) -> list[Rise]:
    """Onsets of every role, with draws that belong to one another draw by draw."""
    if not (np.isfinite(strength.squared).all() and np.isfinite(strength.covariance).all()):
        nothing = Rise(np.full(len(HEIGHTS), np.nan), np.full((draws, len(HEIGHTS)), np.nan), 0.0, 0, strength.groups)
        return [nothing] * len(strength.squared)
    ends = [end_of_plateau(row) + 1 for row in strength.squared]
    fits, own, tops = [], [], []
    for row, end in zip(strength.squared, ends, strict=True):
        at, plateau, fit = crossings(row[None, :end])
        own.append(at[0])
        tops.append(float(plateau[0]))
        fits.append(fit[0])
    errors = strength.errors(draws, seed)
    return [
        Rise(
            own[k],
            crossings(fit + errors[k][:, : len(fit)])[0],
            tops[k],
            int(strength.squared[k].argmax()),
            strength.groups,
        )
        for k, fit in enumerate(fits)
    ]


@dataclass(frozen=True)
class Order:
    """Which of two rises comes first.

    Attributes:
        difference: onset of the second less that of the first at half height, blocks; low, high: its 95 % interval.
        p_value: two-sided, of no difference; 1 where the heights disagree.
        by_height: the difference at each of :data:`HEIGHTS`.
        ratio: strength of the first over that of the second.
        first: 1 where the first role begins earlier, 2 where the second does, 0 where no order is shown.
        told: False where a difference of :data:`MATTERS` blocks could not have been seen.
    """

    difference: float
    low: float
    high: float
    p_value: float
    by_height: tuple[float, ...]
    ratio: float
    first: int
    told: bool


LEVEL = 0.02
"""Of the test: its error is an estimate itself, so 2 % is asked for in order that at most 5 % of ties get an order."""
MATTERS = 3.0
"""Blocks; an interval wider than this on one side could not have shown a difference that matters."""
MOST_RATIO = 4.0
"""Largest ratio of strengths at which level and power were measured; beyond it nothing is said."""


def order_of(one: Rise, other: Rise, level: float = LEVEL) -> Order:
    """The order of two rises of :func:`rises`."""
    from scipy.stats import t

    apart = other.at - one.at
    drawn = (other.draws - one.draws)[:, HALF]
    ratio = one.strength / other.strength if other.strength > 0 else float("inf")
    known = np.isfinite(drawn)
    if not np.isfinite(apart).all() or known.mean() < 0.95:
        return Order(float("nan"), float("nan"), float("nan"), 1.0, tuple(apart.tolist()), ratio, 0, False)
    low, high = np.quantile(drawn[known], [0.025, 0.975])
    error = float(high - low) / 3.92
    freedom = max(1, min(one.groups, other.groups) - 1)
    value = float(apart[HALF])
    agree = bool((np.sign(apart) == np.sign(value)).all())
    p_value = float(2 * t.sf(abs(value) / error, freedom)) if error > 0 else float(value == 0)
    p_value = p_value if agree else 1.0
    half = float(t.ppf(0.975, freedom)) * error
    within = 1 / MOST_RATIO <= ratio <= MOST_RATIO
    first = (1 if value > 0 else 2) if p_value < level and within else 0
    told = bool(first or (within and half <= MATTERS))
    return Order(value, value - half, value + half, p_value, tuple(float(x) for x in apart), ratio, first, told)


def order_words(order: Order, names: tuple[str, str]) -> str:
    """The conclusion in words."""
    if order.first:
        earlier, later = names if order.first == 1 else names[::-1]
        return f"{earlier} begins in an earlier block than {later}"
    if order.told:
        if order.p_value == 1.0 and abs(order.difference) > 0 and not (order.low <= 0 <= order.high):
            return f"no order of {names[0]} and {names[1]} is shown: they rise at unequal pace and cross"
        return f"no order of {names[0]} and {names[1]} is shown"
    stronger, ratio = (names[0], order.ratio) if order.ratio >= 1 else (names[1], 1 / max(order.ratio, 1e-9))
    if ratio >= 1.5:
        times = f"{ratio:.1f}" if ratio < 100 else "over 100"
        return f"the order of {names[0]} and {names[1]} cannot be told, because {stronger} is {times} times stronger"
    return f"the order of {names[0]} and {names[1]} cannot be told: the onsets are not known well enough"
