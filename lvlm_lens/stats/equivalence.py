"""Better, worse, equivalent, or not told: a difference of two fitted methods, with the fitting's own chance in it.

*Corrected resampled t interval* (Nadeau and Bengio 2003): a difference is measured on ``J`` random splits, everything
fitted anew in each; the splits share items, so the variance of their mean is taken as ``(1 / J + test / train)`` times
their variance, with J - 1 degrees of freedom.  An interval over test items of one fitted pair leaves the chance of the
training sample out, and calls two equally good methods different.

*Equivalence* (two one-sided tests, Schuirmann 1987): the difference is shown to lie within a margin that was fixed
before.  That a test finds no difference shows nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Contest:
    """A difference (first minus second) and what can be said of it.

    Attributes:
        value, low, high: the difference and its 95 % interval.
        p: two-sided, of no difference.
        p_equivalent: of two one-sided tests, that the difference is not within the margin.
        margin: fixed before.
        verdict: ``better``, ``worse``, ``equivalent`` or ``cannot be told``.
        splits: number of splits.
    """

    value: float
    low: float
    high: float
    p: float
    p_equivalent: float
    margin: float
    verdict: str
    splits: int


def corrected_contest(
    differences: Sequence[float] | np.ndarray, test_to_train: float, margin: float, level: float = 0.05
) -> Contest:
    """The verdict on ``differences [split]`` of a score, first method minus second.

    Args:
        differences: one a random split of the same items.
        test_to_train: number of test groups over number of training groups in a split.
        margin: differences smaller than this do not matter.
        level: of each test.

    A difference that is shown to be within the margin is ``equivalent``, even where it also differs from 0.

    Raises:
        ValueError: fewer than two splits, or a margin that is not positive.
    """
    from scipy.stats import t

    found = np.asarray(differences, dtype=np.float64)
    if len(found) < 2 or not margin > 0:
        raise ValueError(f"{len(found)} splits and a margin of {margin}; at least 2 and a positive one are needed")
    value, freedom = float(found.mean()), len(found) - 1
    error = float(np.sqrt((1 / len(found) + test_to_train) * found.var(ddof=1)))
    if error == 0:  # every split gave the same difference
        outside, two_sided, half = float(abs(value) >= margin), float(value == 0), 0.0
    else:
        outside = float(max(t.sf((value + margin) / error, freedom), t.cdf((value - margin) / error, freedom)))
        two_sided = float(2 * t.sf(abs(value) / error, freedom))
        half = float(t.ppf(1 - level / 2, freedom)) * error
    if outside <= level:
        verdict = "equivalent"
    elif two_sided <= level:
        verdict = "better" if value > 0 else "worse"
    else:
        verdict = "cannot be told"
    return Contest(value, value - half, value + half, two_sided, outside, margin, verdict, len(found))
