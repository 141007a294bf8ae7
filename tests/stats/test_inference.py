"""The two shared pieces of statistics, against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lvlm_lens.inference import false_discovery, wilson_bounds


@pytest.mark.parametrize(("successes", "total"), [(0, 7), (3, 7), (7, 7), (1, 1), (430, 1000)])
def test_wilson_bounds_solve_the_score_equation(successes: int, total: int) -> None:
    """Both bounds are the shares p at which |share - p| is z standard errors of p."""
    z, share = 1.959963984540054, successes / total
    low, high = wilson_bounds(successes, total)
    for bound in (low, high):
        if 0 < bound < 1:
            assert math.isclose(abs(share - bound), z * math.sqrt(bound * (1 - bound) / total), rel_tol=1e-6)
    assert 0 <= low <= share <= high <= 1
    wide = wilson_bounds(successes, total, 0.99)
    assert wide[0] <= low and wide[1] >= high


def test_wilson_bounds_of_nothing() -> None:
    assert all(math.isnan(bound) for bound in wilson_bounds(0, 0))


def test_false_discovery_is_the_smallest_level_that_rejects() -> None:
    p = np.random.default_rng(3).random((5, 6)) ** 2
    ordered, n = np.sort(p.ravel()), p.size
    by_hand = [min(1.0, *(ordered[k] * n / (k + 1) for k in range(n) if ordered[k] >= value)) for value in p.ravel()]
    np.testing.assert_allclose(false_discovery(p).ravel(), by_hand)


def test_false_discovery_passes_over_missing_tests() -> None:
    found = false_discovery([0.01, np.nan, 0.04])
    np.testing.assert_allclose(found[[0, 2]], [0.02, 0.04])
    assert np.isnan(found[1])
    assert false_discovery([]).size == 0 and np.isnan(false_discovery([np.nan])).all()
