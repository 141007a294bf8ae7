"""Rates and means with intervals over groups: items that share a picture or a behaviour are not independent.

Intervals and tests are those of :mod:`lvlm_lens.stats.groups`; this module gives them names and prints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from ..inference import wilson_bounds
from ..stats.groups import bootstrap_mean, group_index, share_interval


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its interval; ``value``, ``low``, ``high`` are NaN when ``total`` is 0.

    ``groups`` is the number of independent groups among the ``total`` items.
    """

    name: str
    value: float
    low: float
    high: float
    successes: float
    total: int
    interval: str = "wilson"
    groups: int = 0

    def __str__(self) -> str:
        if not self.total:
            return f"{self.name}: no items"
        items = f"{self.total} items" + (f" in {self.groups} groups" if self.groups < self.total else "")
        return f"{self.name}: {100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] ({items})"


def wilson(successes: int, total: int, name: str = "", level: float = 0.95) -> Rate:
    """Share of successes among independent items, with Wilson's score interval (Wilson 1927)."""
    if not 0 <= successes <= total:
        raise DataError(f"{successes} successes of {total} is not a share")
    if total == 0:
        return Rate(name, np.nan, np.nan, np.nan, 0, 0)
    return Rate(name, successes / total, *wilson_bounds(successes, total, level), successes, total, groups=total)


def rate(
    outcomes: Sequence[bool | int],
    name: str = "",
    groups: Sequence[Any] | np.ndarray | None = None,
    level: float = 0.95,
) -> Rate:
    """Share of true outcomes.

    Args:
        outcomes: one per item.
        name: of the rate.
        groups: of the items; ``None`` says that all items are independent.
        level: of the interval (:func:`~lvlm_lens.stats.groups.share_interval`).
    """
    values = [bool(outcome) for outcome in outcomes]
    if groups is not None and len(groups) != len(values):
        raise DataError(f"{len(values)} outcomes and {len(groups)} groups")
    count = len(values) if groups is None else group_index(groups)[1]
    if count == len(values):
        return wilson(sum(values), len(values), name, level)
    low, high = share_interval(values, groups, level)
    return Rate(name, float(np.mean(values)), low, high, sum(values), len(values), "wilson over groups", count)


def bootstrap(
    values: Sequence[float],
    groups: Sequence[Any] | np.ndarray,
    name: str = "",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Rate:
    """Mean of scores ``values`` with a bootstrap interval over groups; for outcomes of 0 and 1 write :func:`rate`."""
    if len(values) != len(groups):
        raise DataError(f"{len(values)} values and {len(groups)} groups")
    how = "bootstrap over groups"
    if not len(values):
        return Rate(name, np.nan, np.nan, np.nan, 0, 0, how)
    array = np.asarray(values, float)
    low, high = (float(bound[0]) for bound in bootstrap_mean(array, groups, resamples, level, seed))
    count = group_index(groups)[1]
    return Rate(name, float(array.mean()), low, high, float(array.sum()), len(array), how, count)


@dataclass(frozen=True)
class ScoreTable:
    """The result of one benchmark: named rates, the mode they were taken in, and what could not be read.

    ``failures`` counts answers or verdicts that could not be read; they stay in every denominator and are never
    successes.  ``items`` holds one row per item, for paired tests.
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
