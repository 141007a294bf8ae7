"""Intervals and tests over groups, against SciPy, closed forms and counted coverage."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from scipy import stats

from lvlm_lens.stats.groups import (
    bootstrap_mean,
    bootstrap_ratio,
    group_sums,
    paired_test,
    share_interval,
    sign_flip_p,
    sign_flips,
)


def test_single_items_of_0_and_1_give_mcnemars_exact_test() -> None:
    a = [1] * 9 + [0] * 2 + [1] * 5 + [0] * 4
    b = [0] * 9 + [1] * 2 + [1] * 5 + [0] * 4
    exact = 2 * sum(comb(11, k) for k in range(3)) / 2**11
    assert paired_test(a, b).p == pytest.approx(exact)
    assert paired_test(b, a).p == pytest.approx(exact) and paired_test(b, a).value == -paired_test(a, b).value
    assert paired_test([1, 0], [1, 0]).p == 1.0
    more = paired_test(a * 4, b * 4)  # 44 unequal pairs: sampled flips
    assert more.p == pytest.approx(stats.binomtest(36, 44).pvalue, abs=1e-3)
    with pytest.raises(ValueError, match="equal length"):
        paired_test([1], [1, 0])
    with pytest.raises(ValueError, match="items"):
        paired_test([], [])


def test_sign_flips_are_all_of_them_up_to_twelve_groups() -> None:
    signs, exact = sign_flips(6)
    assert exact and len({tuple(row) for row in signs}) == 64 and (signs[0] == 1).all()
    assert not sign_flips(13, 50)[1]
    values = np.random.default_rng(0).normal(0.5, 1, (3, 9))
    for own, row in zip(sign_flip_p(values, range(9)), values, strict=True):
        scipys = stats.permutation_test((row, -row), lambda x, y, axis: x.mean(axis), permutation_type="samples",
                                        n_resamples=10**4, vectorized=True).pvalue  # fmt: skip
        assert own == pytest.approx(scipys)
    one = sign_flip_p(values, range(9), one_sided=True)
    other = sign_flip_p(-values, range(9), one_sided=True)
    assert np.allclose(2 * np.minimum(one, other), sign_flip_p(values, range(9)))


def test_items_of_one_group_count_once() -> None:
    values = np.random.default_rng(1).normal(0.3, 1, (2, 10))
    repeated, groups = np.repeat(values, 7, 1), np.repeat(np.arange(10), 7)
    assert np.array_equal(sign_flip_p(values, range(10)), sign_flip_p(repeated, groups))
    assert np.allclose(bootstrap_mean(values, range(10)), bootstrap_mean(repeated, groups))
    missing = values.copy()
    missing[0] = np.nan
    assert np.isnan(sign_flip_p(missing, range(10))[0]) and np.isnan(bootstrap_mean(missing, range(10))[0][0])
    sums, sizes = group_sums([1.0, np.nan, 3.0], ["a", "a", "b"])
    assert sums.tolist() == [[1, 3]] and sizes.tolist() == [[1, 1]]


def test_bootstrap_of_a_mean_is_as_wide_as_a_t_interval() -> None:
    for count in (6, 12, 40):
        values = np.random.default_rng(count).normal(0, 1, (1, count))
        low, high = bootstrap_mean(values, range(count), replicates=20000)
        t = stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count)
        assert (high - low)[0] == pytest.approx(2 * t, rel=0.12)


def test_ratio_of_sums() -> None:
    rng = np.random.default_rng(0)
    gap = rng.gamma(2, 1, 400)
    part = 0.4 * gap + rng.normal(0, 0.3, 400)
    low, high = bootstrap_ratio(part, gap, range(400))
    spread = np.std(part - 0.4 * gap) / np.sqrt(400) / gap.mean()  # delta method
    assert low[0] < 0.4 < high[0] and (high - low)[0] == pytest.approx(2 * 1.96 * spread, rel=0.1)


@pytest.mark.parametrize(("successes", "total"), [(0, 7), (7, 7), (3, 11), (81, 263), (1, 1)])
def test_share_of_single_items_has_wilsons_interval(successes: int, total: int) -> None:
    outcomes = [1] * successes + [0] * (total - successes)
    found = stats.binomtest(successes, total).proportion_ci(method="wilson")
    for groups in (None, range(total)):
        assert share_interval(outcomes, groups) == pytest.approx((found.low, found.high), abs=1e-12)


def test_share_of_groups_in_which_all_items_are_alike_has_no_more_items_than_groups() -> None:
    outcomes = np.repeat([1, 0, 0, 1, 0, 0, 0, 0], 20)
    low, high = share_interval(outcomes, np.repeat(np.arange(8), 20))
    once_low, once_high = share_interval(np.array([1, 0, 0, 1, 0, 0, 0, 0]))
    assert low < once_low and high > once_high  # t in place of z
    low, high = share_interval(np.zeros(160), np.repeat(np.arange(8), 20))
    assert low == 0 and high > 0.35  # eight groups without an event do not rule out one in three
    assert np.isnan(share_interval([1, 0], ["a", "a"])).all() and np.isnan(share_interval([])).all()


def test_interval_of_a_difference_of_shares_is_not_empty_where_nothing_differed() -> None:
    found = paired_test([0] * 30, [0] * 30, np.repeat(np.arange(10), 3))
    assert (found.value, found.p) == (0.0, 1.0) and found.low < -0.1 and found.high > 0.1
    assert found.groups == 10
    assert np.isnan(paired_test([0, 1], [1, 1], ["a", "a"]).low)
