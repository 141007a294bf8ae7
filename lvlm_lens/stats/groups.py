"""Intervals and tests where items come in groups (a behaviour, a picture): the one implementation of both.

Items of one group are not independent, so a group is drawn, or has its sign flipped, as a whole.

* *Interval of a mean*: percentile bootstrap over groups, its tails widened for few groups by
  ``Phi(sqrt(G / (G - 1)) t)`` (the expanded percentile interval, Hesterberg 2015, arXiv 1411.5279).
* *Interval of a share*, and of the difference of two shares: with few events most bootstrap samples hold none, and
  the percentile interval of 5 % in 20 groups covers 60 to 80 %.  So a share has Wilson's interval and a difference of
  shares that of Agresti and Min (2005), both with the number of independent items that the spread between groups
  leaves (n divided by the design effect; Korn and Graubard 1998) and the t quantile of G - 1.  Where no two groups
  differ, that spread cannot be seen and every group counts as one item.  [own in putting these together; coverage is
  measured by ``lvlm-lens selftest --audit``]
* *Test of mean 0*: sign flips of group sums (Fisher 1935).  All of them up to 12 groups, else a random sample with
  ``p = (1 + hits) / (1 + draws)`` (Phipson and Smyth 2010).

Missing values (NaN) are left out cell by cell.  Every difference is the first argument minus the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

EXACT_GROUPS = 12
"""Up to so many groups all sign flips are enumerated."""
DRAWS = 10000
"""Random sign flips above that."""


def group_index(groups: Sequence[Any] | np.ndarray) -> tuple[np.ndarray, int]:
    """Number of each item's group, ``[item]`` int64, in order of first appearance, and how many groups there are."""
    seen: dict[Any, int] = {}
    index = np.array([seen.setdefault(group, len(seen)) for group in np.asarray(groups).tolist()], dtype=np.int64)
    return index, len(seen)


def sample_words(labels: Any, groups: Sequence[Any] | np.ndarray | None = None) -> str:
    """How large a labelled sample is: ``300 items``, ``300 items in 150 groups``, or ``20 groups`` of one label each.

    Where all items of a group have one label, nothing compares them with one another: the groups are what is counted.
    """
    labels = np.asarray(labels)
    if groups is None or len(np.unique(groups)) == len(labels):
        return f"{len(labels)} items"
    count = len(np.unique(groups))
    cells = len(set(zip(np.asarray(groups).tolist(), labels.tolist(), strict=True)))
    return f"{count} groups" if cells == count else f"{len(labels)} items in {count} groups"


def group_sums(values: Any, groups: Sequence[Any] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and numbers of the finite values of each group, ``[cell, group]`` float64 each.

    Args:
        values: ``[cell, item]`` or ``[item]`` (one cell).
        groups: of the items.

    Raises:
        ValueError: as many groups as items are needed.
    """
    values = np.atleast_2d(np.asarray(values, dtype=np.float64))
    index, count = group_index(groups)
    if values.shape[1] != len(index):
        raise ValueError(f"{values.shape[1]} values and {len(index)} groups")
    member = np.zeros((len(index), count))
    member[np.arange(len(index)), index] = 1.0
    there = np.isfinite(values)
    return np.where(there, values, 0.0) @ member, there.astype(np.float64) @ member


def sign_flips(count: int, draws: int = DRAWS, seed: int = 0) -> tuple[np.ndarray, bool]:
    """Signs ``[draw, group]`` and whether they are all there are.

    Up to :data:`EXACT_GROUPS` groups: every vector of signs, the one without flips first.  A vector and its opposite
    give the same absolute sum, so two-sided tests read both.  Above: ``draws`` random vectors.
    """
    if count <= EXACT_GROUPS:
        bits = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        return 1.0 - 2.0 * bits, True
    return np.random.default_rng(seed).choice([-1.0, 1.0], (draws, count)), False


def share_as_large(null: np.ndarray, observed: np.ndarray, exact: bool) -> np.ndarray:
    """P-values ``[cell]``: the share of ``null [draw, cell]`` at least as large as ``observed [cell]``.

    Rounding must not decide ties: the flip of no sign gives the observed value itself.
    """
    hits = (null >= observed * (1 - 1e-9) - 1e-12).sum(0)
    return hits / len(null) if exact else (1 + hits) / (1 + len(null))


def sign_flip_p(
    values: Any, groups: Sequence[Any] | np.ndarray, draws: int = DRAWS, seed: int = 0, one_sided: bool = False
) -> np.ndarray:
    """P-value ``[cell]`` of mean 0 for ``values [cell, item]``; NaN where all are missing.

    ``one_sided`` tests against means above 0.
    """
    sums, sizes = group_sums(values, groups)
    signs, exact = sign_flips(sums.shape[1], draws, seed)
    null, observed = signs @ sums.T, sums.sum(1)
    p = share_as_large(null, observed, exact) if one_sided else share_as_large(np.abs(null), np.abs(observed), exact)
    return np.where(sizes.sum(1) > 0, p, np.nan)


def expanded_tail(count: int, confidence: float) -> float:
    """The tail of a percentile interval over ``count`` groups that has the coverage of a t interval."""
    from scipy.stats import norm, t

    if count < 2:
        return float("nan")
    return float(norm.cdf(np.sqrt(count / (count - 1)) * t.ppf((1 - confidence) / 2, count - 1)))


def bootstrap_ratio(
    above: Any,
    below: Any,
    groups: Sequence[Any] | np.ndarray,
    replicates: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Interval ``(low, high)``, each ``[cell]``, of ``sum(above) / sum(below)`` over items, groups redrawn together.

    Args:
        above, below: ``[cell, item]``; items that miss either are left out of both.
        groups: of the items.

    NaN where all items are missing, or where there is one group only.
    """
    above, below = np.broadcast_arrays(
        np.atleast_2d(np.asarray(above, np.float64)), np.atleast_2d(np.asarray(below, np.float64))
    )
    missing = ~(np.isfinite(above) & np.isfinite(below))
    top = group_sums(np.where(missing, np.nan, above), groups)[0]
    bottom, sizes = group_sums(np.where(missing, np.nan, below), groups)
    count = top.shape[1]
    low, high = np.full(len(top), np.nan), np.full(len(top), np.nan)
    some = np.flatnonzero(sizes.any(1))
    if count < 2 or not len(some):
        return low, high
    drawn = np.random.default_rng(seed).integers(0, count, (replicates, count))
    weights = np.zeros((replicates, count))
    np.add.at(weights, (np.repeat(np.arange(replicates), count), drawn.reshape(-1)), 1.0)
    tail = expanded_tail(count, confidence)
    step = max(1, 2**24 // replicates)  # cells at a time
    for first in range(0, len(some), step):
        cells = some[first : first + step]
        total = weights @ bottom[cells].T  # [replicate, cell]
        ratio = np.divide(weights @ top[cells].T, total, out=np.full_like(total, np.nan), where=total != 0)
        low[cells], high[cells] = np.nanquantile(ratio, [tail, 1 - tail], axis=0)
    return low, high


def bootstrap_mean(
    values: Any, groups: Sequence[Any] | np.ndarray, replicates: int = 2000, confidence: float = 0.95, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Interval ``(low, high)``, each ``[cell]``, of the mean over items of ``values [cell, item]``.

    NaN where all values are missing, or where there is one group only.
    """
    return bootstrap_ratio(values, np.ones_like(np.asarray(values, np.float64)), groups, replicates, confidence, seed)


def _independent(apart: np.ndarray, sizes: np.ndarray, variance: float) -> float:
    """Number of independent items that have the information of grouped ones.

    Args:
        apart: ``[group]``, sums of the values minus the mean.
        sizes: ``[group]``, numbers of items; two groups at least.
        variance: of one item.
    """
    count, total = len(sizes), float(sizes.sum())
    between = count / (count - 1) * float((apart**2).sum()) / total**2  # of the mean
    return min(variance / between, total) if between > 0 and variance > 0 else float(count)


def share_interval(
    outcomes: Sequence[Any] | np.ndarray, groups: Sequence[Any] | np.ndarray | None = None, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of the share of true ``outcomes [item]``; NaN where there are none, or one group of several items.

    Wilson's score interval (Wilson 1927) where every item is its own group, else with the number of independent items
    and the t quantile, as told at the head of this module.
    """
    from scipy.stats import norm, t

    values = np.asarray(outcomes, dtype=np.float64)
    if not len(values):
        return float("nan"), float("nan")
    mean, n = float(values.mean()), float(len(values))
    quantile = float(norm.ppf((1 + confidence) / 2))
    if groups is not None:
        sums, sizes = (rows[0] for rows in group_sums(values, groups))
        if len(sizes) < len(values):
            if len(sizes) < 2:
                return float("nan"), float("nan")
            n = _independent(sums - mean * sizes, sizes, mean * (1 - mean))
            quantile = float(t.ppf((1 + confidence) / 2, len(sizes) - 1))
    shrink = 1 + quantile**2 / n
    centre = (mean + quantile**2 / (2 * n)) / shrink
    half = quantile / shrink * np.sqrt(mean * (1 - mean) / n + quantile**2 / (4 * n**2))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def share_excess(
    first: Any, second: Any, first_groups: Any = None, second_groups: Any = None, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Share of true ``first`` less that of ``second``, other items: value, low, high (Newcombe 1998, over groups).

    The interval joins the two shares' own (:func:`share_interval`); NaN where one list is empty.
    """
    shares = [float(np.mean(rows)) if len(rows) else float("nan") for rows in (first, second)]
    (low_1, high_1), (low_2, high_2) = (
        share_interval(rows, groups, confidence) for rows, groups in ((first, first_groups), (second, second_groups))
    )
    value = shares[0] - shares[1]
    low = value - float(np.hypot(shares[0] - low_1, high_2 - shares[1]))
    high = value + float(np.hypot(high_1 - shares[0], shares[1] - low_2))
    return value, low, high


def _share_difference(apart: np.ndarray, sums: np.ndarray, sizes: np.ndarray, confidence: float) -> tuple[float, float]:
    """Interval of a difference of shares from ``apart [item]`` in {-1, 0, 1} (Agresti and Min 2005, over groups)."""
    from scipy.stats import t

    mean, unequal = float(apart.mean()), float(np.abs(apart).mean())
    n = _independent(sums - mean * sizes, sizes, unequal - mean**2)
    up, down = ((0.5 * (unequal + sign * mean) * n + 0.5) / (n + 2) for sign in (1, -1))
    middle = up - down
    half = float(t.ppf((1 + confidence) / 2, len(sizes) - 1)) * np.sqrt((up + down - middle**2) / (n + 2))
    return float(max(-1.0, middle - half)), float(min(1.0, middle + half))


@dataclass(frozen=True, slots=True)
class Difference:
    """First minus second on the same items.

    Attributes:
        value: mean difference; low, high: its interval (NaN with one group); p: two-sided, of no difference.
        groups: number of independent groups.
        test: how ``p`` was found.
    """

    value: float
    low: float
    high: float
    p: float
    groups: int
    test: str


def paired_test(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    groups: Sequence[Any] | np.ndarray | None = None,
    confidence: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> Difference:
    """Mean of ``first - second`` on the same items: interval and sign-flip p-value over groups.

    With every item its own group and outcomes of 0 and 1 the test is McNemar's exact one.

    Raises:
        ValueError: no items, or lists of different length.
    """
    if len(first) != len(second):
        raise ValueError(f"paired outcomes must be of equal length, not {len(first)} and {len(second)}")
    if not len(first):
        raise ValueError("a paired test needs items")
    apart = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    index, count = group_index(np.arange(len(apart)) if groups is None else groups)
    sums, sizes = (rows[0] for rows in group_sums(apart, index))
    moved = sums != 0  # flips of a group without a difference change nothing
    p = float(sign_flip_p(sums[None, moved], np.arange(moved.sum()), seed=seed)[0]) if moved.any() else 1.0
    all_flips = int(moved.sum()) <= EXACT_GROUPS
    if count < 2:
        low = high = float("nan")
    elif np.isin(apart, (-1.0, 0.0, 1.0)).all():
        low, high = _share_difference(apart, sums, sizes, confidence)
    else:
        low, high = (float(b[0]) for b in bootstrap_mean(apart, index, replicates, confidence, seed))
    test = f"sign flips over groups ({'all' if all_flips else DRAWS} of them)"
    return Difference(float(apart.mean()), low, high, p, count, test)


def paired_bootstrap(first: Any, second: Any, confidence: float = 0.95) -> dict[str, Any]:
    """Difference ``first - second`` of two statistics on the same replicates.

    Both are ``[replicate]`` or ``[replicate, block]``.  For statistics that are no mean over items, which sign flips
    cannot test.

    Returns:
        ``difference`` (mean over replicates), ``low``, ``high``, and the two-sided ``p_value``: twice the
        smaller share of replicates on the far side of zero, ties counted against the difference.
    """
    delta = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(delta, [tail, 1 - tail], axis=0)
    count = np.isfinite(delta).sum(0)
    below = (1 + (delta <= 0).sum(0)) / (1 + count)
    above = (1 + (delta >= 0).sum(0)) / (1 + count)
    return {
        "difference": np.nanmean(delta, 0),
        "low": low,
        "high": high,
        "p_value": np.minimum(1.0, 2 * np.minimum(below, above)),
    }
