"""Rates with intervals, and tests between two models on the same items.

Wilson's interval for independent items; a bootstrap over groups where items share a picture or a behaviour; McNemar's
exact test and the paired bootstrap for two systems on the same items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from ..errors import DataError
from ..inference import wilson_bounds


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its interval; ``value``, ``low``, ``high`` are NaN when ``total`` is 0."""

    name: str
    value: float
    low: float
    high: float
    successes: float
    total: int
    interval: str = "wilson"

    def __str__(self) -> str:
        if not self.total:
            return f"{self.name}: no items"
        return (
            f"{self.name}: {100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] ({self.total} items)"
        )


def wilson(successes: int, total: int, name: str = "", level: float = 0.95) -> Rate:
    """Share of successes with Wilson's score interval (Wilson 1927)."""
    if not 0 <= successes <= total:
        raise DataError(f"{successes} successes of {total} is not a share")
    if total == 0:
        return Rate(name, np.nan, np.nan, np.nan, 0, 0)
    return Rate(name, successes / total, *wilson_bounds(successes, total, level), successes, total)


def rate(outcomes: Sequence[bool | int], name: str = "", level: float = 0.95) -> Rate:
    """Wilson's rate of a list of outcomes."""
    return wilson(int(sum(bool(outcome) for outcome in outcomes)), len(outcomes), name, level)


def _group_sums(values: np.ndarray, groups: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of values in each group, in the order in which the groups appear: ``[groups]`` each."""
    index: dict[Any, int] = {}
    members = np.array([index.setdefault(group, len(index)) for group in groups])
    return np.bincount(members, values), np.bincount(members).astype(float)


def bootstrap(
    values: Sequence[float],
    groups: Sequence[Any],
    name: str = "",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Rate:
    """Mean of ``values`` with a percentile interval from resampling whole groups."""
    if len(values) != len(groups):
        raise DataError(f"{len(values)} values and {len(groups)} groups")
    if not len(values):
        return Rate(name, np.nan, np.nan, np.nan, 0, 0, "bootstrap over groups")
    array = np.asarray(values, float)
    sums, counts = _group_sums(array, groups)
    picks = np.random.default_rng(seed).integers(0, len(sums), (resamples, len(sums)))
    means = sums[picks].sum(1) / counts[picks].sum(1)  # [resamples]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Rate(
        name, float(array.mean()), float(low), float(high), float(array.sum()), len(array), "bootstrap over groups"
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """``b - a`` on the same items, with its interval and p value."""

    value: float
    low: float
    high: float
    p: float
    test: str


def mcnemar(a: Sequence[bool | int], b: Sequence[bool | int]) -> float:
    """Two-sided exact p that two systems succeed equally often on the same items (McNemar 1947, binomial form)."""
    if len(a) != len(b):
        raise DataError(f"paired outcomes must be of equal length, not {len(a)} and {len(b)}")
    only_a = sum(bool(x) and not y for x, y in zip(a, b, strict=True))
    only_b = sum(bool(y) and not x for x, y in zip(a, b, strict=True))
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    groups: Sequence[Any] | None = None,
    level: float = 0.95,
    resamples: int = 5000,
    seed: int = 0,
) -> Difference:
    """Mean of ``b - a`` with a percentile interval over groups.

    p is twice the smaller tail beyond 0, and at least 1 / resamples.
    """
    if len(a) != len(b):
        raise DataError(f"paired outcomes must be of equal length, not {len(a)} and {len(b)}")
    if not len(a):
        raise DataError("a paired test needs items")
    apart = np.asarray(b, float) - np.asarray(a, float)
    sums, counts = _group_sums(apart, groups if groups is not None else range(len(apart)))
    picks = np.random.default_rng(seed).integers(0, len(sums), (resamples, len(sums)))
    means = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    tail = min((means <= 0).mean(), (means >= 0).mean())
    p = min(1.0, max(2 * tail, 1 / resamples))
    return Difference(float(apart.mean()), float(low), float(high), float(p), "paired bootstrap over groups")


@dataclass(frozen=True)
class ScoreTable:
    """The result of one benchmark: named rates, the mode they were taken in, and what could not be read.

    ``failures`` counts answers or verdicts that could not be read; they stay in every denominator and are never
    successes.  ``items`` holds one row an item, for paired tests.
    """

    benchmark: str
    mode: str
    rates: tuple[Rate, ...]
    failures: int = 0
    notes: tuple[str, ...] = ()
    items: tuple[dict[str, Any], ...] = ()

    def __getitem__(self, name: str) -> Rate:
        for found in self.rates:
            if found.name == name:
                return found
        raise KeyError(f"no rate {name!r}; the rates are {', '.join(found.name for found in self.rates)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        rows = [
            {key: None if isinstance(item, float) and np.isnan(item) else item for key, item in asdict(found).items()}
            for found in self.rates
        ]
        return {
            "benchmark": self.benchmark,
            "mode": self.mode,
            "rates": rows,
            "failures": self.failures,
            "notes": list(self.notes),
        }

    def to_dataframe(self) -> Any:
        """A pandas frame, one row a rate."""
        import pandas

        return pandas.DataFrame(
            [{"benchmark": self.benchmark, "mode": self.mode, **asdict(found)} for found in self.rates]
        )

    def __str__(self) -> str:
        head = f"{self.benchmark} ({self.mode})" + (f", {self.failures} not readable" if self.failures else "")
        return "\n".join([head, *(f"  {found}" for found in self.rates), *(f"  note: {note}" for note in self.notes)])
