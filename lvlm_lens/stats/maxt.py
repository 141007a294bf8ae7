"""Many cells tested at once by sign flips: the step-down max-T procedure of Westfall and Young (1993).

All cells of a grid share the same flips of groups, so the largest statistic of each flip already knows how the cells
depend on one another.  Its adjusted p-values control the family-wise error: the chance that *any* cell without an
effect is called one.  A cell competes with the largest of the others in each flip, and not with a share of them, so
one cell among hundreds can be found, where a false-discovery rate asks the flips for a p-value as small as 1 / cells.

The statistic of a cell is ``sum / sqrt(sum of squares)`` of its group sums: a monotone function of the t statistic, the
same one for all cells, whose denominator no flip changes.  [own form, usual in resampling tests]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .groups import DRAWS, EXACT_GROUPS, group_index, group_sums, share_as_large, sign_flips


@dataclass(frozen=True)
class MaxT:
    """P-values of many cells.

    Attributes:
        p: of each cell alone, ``[cell]``; NaN where all its items are missing.
        adjusted: over all cells, ``[cell]``.
        smallest: the least value that ``adjusted`` can take here.
        groups: number of groups whose signs flip.
    """

    p: np.ndarray
    adjusted: np.ndarray
    smallest: float
    groups: int


def max_t(
    values: Any, groups: Sequence[Any] | np.ndarray, one_sided: bool = False, draws: int = DRAWS, seed: int = 0
) -> MaxT:
    """Test of mean 0 in every cell of ``values [cell, item]``; missing values are NaN.

    Args:
        values: by cell and item.
        groups: of the items, which flip as a whole; all flips up to 12 groups.
        one_sided: against means above 0 only.
        draws: random flips where there are too many to enumerate.
        seed: of these.
    """
    sums, sizes = group_sums(values, groups)
    there = np.flatnonzero(sizes.sum(1) > 0)
    count = sums.shape[1]
    p, adjusted = np.full(len(sums), np.nan), np.full(len(sums), np.nan)
    least = smallest_p(count, one_sided, draws)
    if not len(there):
        return MaxT(p, adjusted, least, count)
    norm = np.sqrt((sums[there] ** 2).sum(1))
    unit = np.divide(sums[there], norm[:, None], out=np.zeros_like(sums[there]), where=norm[:, None] > 0)
    observed = unit.sum(1)
    signs, exact = sign_flips(count, draws, seed)
    if not one_sided:
        observed = np.abs(observed)
    order = np.argsort(observed)  # the smallest first: the maximum over a cell and all smaller ones accumulates
    hits, alone = np.zeros(len(order)), np.zeros(len(order))
    step = max(1, 2**24 // len(order))
    for first in range(0, len(signs), step):
        null = signs[first : first + step] @ unit[order].T  # [draw, cell]
        if not one_sided:
            np.abs(null, out=null)
        alone += share_as_large(null, observed[order], True) * len(null)
        np.maximum.accumulate(null, axis=1, out=null)
        hits += share_as_large(null, observed[order], True) * len(null)
    both = [rows / len(signs) if exact else (1 + rows) / (1 + len(signs)) for rows in (alone, hits)]
    p[there[order]] = both[0]
    # step down: no cell has a smaller value than one with a larger statistic
    adjusted[there[order[::-1]]] = np.maximum.accumulate(both[1][::-1])
    return MaxT(p, adjusted, least, count)


def smallest_p(groups: int, one_sided: bool = False, draws: int = DRAWS) -> float:
    """The least p-value that sign flips of so many groups can give, adjusted or not."""
    if groups <= EXACT_GROUPS:
        return (1 if one_sided else 2) / 2**groups
    return 1 / (1 + draws)


def attainable(
    groups: Sequence[Any] | np.ndarray, cells: int, level: float = 0.05, one_sided: bool = False, draws: int = DRAWS
) -> str:
    """What these groups can show at best, in words, to be printed before a run.

    Args:
        groups: of the items.
        cells: number of cells tested together.
        level: family-wise error, and false-discovery rate of the comparison that is told beside it.
    """
    count = group_index(groups)[1]
    least = smallest_p(count, one_sided, draws)
    need = int(np.ceil(least * cells / level - 1e-9))
    found = f"{count} groups, {cells} cells: the smallest adjusted p-value is {least:.2g}"
    if least > level:
        fewest = fewest_groups(level, one_sided)
        return f"{found}, so no cell can survive at {level:g}; {fewest} groups are the fewest that can"
    if count <= EXACT_GROUPS:
        found += "; a cell survives only if it beats the largest of all cells in nearly every flip"
    return f"{found} (under a false-discovery rate at least {need} {'cells' if need > 1 else 'cell'} would have to)"


def fewest_groups(level: float, one_sided: bool = False) -> int:
    """The fewest groups with which any cell can have an adjusted p-value of ``level`` or less."""
    return next(count for count in range(1, 64) if smallest_p(count, one_sided) <= level)
