"""Step-down max-T against its definition, counted, and equivalence against SciPy's t tests."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from lvlm_lens.stats.equivalence import corrected_contest
from lvlm_lens.stats.maxt import attainable, max_t, smallest_p


def by_definition(values: np.ndarray, one_sided: bool) -> np.ndarray:
    """Westfall and Young's step-down algorithm, one flip and one cell at a time, on t statistics."""

    def t(rows: np.ndarray) -> np.ndarray:
        found = rows.mean(1) / (rows.std(1, ddof=1) / np.sqrt(rows.shape[1]))
        return found if one_sided else np.abs(found)

    flips = [t(values * np.array(signs)) for signs in product([1, -1], repeat=values.shape[1])]
    order = np.argsort(-t(values))
    adjusted, last = np.zeros(len(values)), 0.0
    for step, cell in enumerate(order):
        left = order[step:]
        last = max(last, float(np.mean([flip[left].max() >= t(values)[cell] * (1 - 1e-9) for flip in flips])))
        adjusted[cell] = last
    return adjusted


@pytest.mark.parametrize("one_sided", [False, True])
def test_step_down_by_its_definition(one_sided: bool) -> None:
    values = np.random.default_rng(0).normal(0, 1, (6, 7))
    values[2] += 1.5
    values[4] += 0.7
    found = max_t(values, range(7), one_sided)
    assert np.allclose(found.adjusted, by_definition(values, one_sided))
    alone = [by_definition(row[None], one_sided)[0] for row in values]
    assert np.allclose(found.p, alone)
    assert found.smallest == (1 if one_sided else 2) / 2**7


def test_many_groups_are_sampled_and_missing_cells_stay_missing() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (50, 40))
    values[7] += 2
    values[3] = np.nan
    values[9, :5] = np.nan
    values[11] = 0.0
    found = max_t(values, np.arange(40))
    assert found.adjusted[7] == found.smallest == 1 / 10001
    assert np.isnan(found.adjusted[3]) and np.isnan(found.p[3]) and found.adjusted[11] == 1
    others = np.delete(found.adjusted, [3, 7])
    assert (others > 0.05).all() and (found.adjusted[~np.isnan(found.p)] >= found.p[~np.isnan(found.p)]).all()
    grouped = max_t(np.repeat(values, 3, 1), np.repeat(np.arange(40), 3))
    assert np.allclose(grouped.adjusted, found.adjusted, equal_nan=True)
    assert np.isnan(max_t(np.full((2, 3), np.nan), range(3)).adjusted).all()


def test_what_can_be_attained_is_said_before() -> None:
    assert smallest_p(10) == 2 / 1024 and smallest_p(40) == 1 / 10001
    assert "no cell can survive" in attainable(range(5), 512) and "6 groups are the fewest" in attainable(range(5), 512)
    assert "at least 80 cells would have to" in attainable(range(8), 512)
    assert "at least 2 cells" in attainable(range(40), 512)


def test_contest_against_a_plain_t_test_and_two_one_sided_tests() -> None:
    found = np.random.default_rng(0).normal(0.01, 0.02, 12)
    own = corrected_contest(found, 0.0, 0.03)
    assert own.p == pytest.approx(stats.ttest_1samp(found, 0).pvalue)
    interval = stats.ttest_1samp(found, 0).confidence_interval(0.95)
    assert (own.low, own.high) == pytest.approx((interval.low, interval.high))
    sides = [stats.ttest_1samp(found, -0.03, alternative="greater").pvalue,
             stats.ttest_1samp(found, 0.03, alternative="less").pvalue]  # fmt: skip
    assert own.p_equivalent == pytest.approx(max(sides)) and own.verdict == "equivalent"
    wider = corrected_contest(found, 0.25, 0.03)
    assert (wider.high - wider.low) / (own.high - own.low) == pytest.approx(np.sqrt((1 / 12 + 0.25) * 12))


def test_four_verdicts() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 10)
    assert corrected_contest(0.2 + noise, 0.25, 0.02).verdict == "better"
    assert corrected_contest(-0.2 + noise, 0.25, 0.02).verdict == "worse"
    assert corrected_contest(0.1 * noise, 0.25, 0.02).verdict == "equivalent"
    assert corrected_contest(5 * noise, 0.25, 0.02).verdict == "cannot be told"
    assert corrected_contest(np.zeros(5), 0.25, 0.02).verdict == "equivalent"
    with pytest.raises(ValueError, match="splits"):
        corrected_contest([0.1], 0.25, 0.02)
