"""Squared strengths against loops over all pairs, and against what was planted; onsets of curves worked out by hand."""

import numpy as np
import pytest

from lvlm_lens.stats.onset import crossings, order_of, order_words, rises
from lvlm_lens.stats.signal import Design, scalar_signal_squared
from lvlm_lens.stats.strength import Strength, measure_strength


def test_strength_equals_a_loop_over_pairs_of_other_folds():
    """With unit noise and no correlation left to undo, it is the mean product over pairs of different folds."""
    rng = np.random.default_rng(0)
    n, d = 40, 3
    x, y, fold = rng.standard_normal((n, d)), np.arange(n) % 2 * 2 - 1, np.arange(n) // 2 % 4
    x -= x.mean(0)
    scaled = x / (x[y < 0] - x[y < 0].mean(0)).std(0)
    total = {(a, b): [] for a in (1, -1) for b in (1, -1)}
    for k in range(4):
        noise = scaled[(fold != k) & (y < 0)]
        metric = np.linalg.inv(np.cov(noise.T, bias=True) + np.eye(d))
        for i in np.flatnonzero(fold == k):
            for j in np.flatnonzero(fold != k):
                total[y[i], y[j]].append(scaled[i] @ metric @ scaled[j])
    mean = {key: np.mean(values) for key, values in total.items()}
    expected = mean[1, 1] + mean[-1, -1] - mean[1, -1] - mean[-1, 1]
    assert Design(y, fold).squared(x)[0, 0] == pytest.approx(expected, rel=1e-9)


def test_more_features_than_items_change_nothing_but_the_basis():
    rng = np.random.default_rng(1)
    x, y, fold = rng.standard_normal((30, 12)), np.arange(30) % 2 * 2 - 1, np.arange(30) // 2 % 3
    padded = np.concatenate([x, np.zeros((30, 40))], 1)  # features without noise say nothing
    np.testing.assert_allclose(Design(y, fold).squared(padded), Design(y, fold).squared(x), rtol=1e-8)


def test_strength_is_unbiased_at_zero_and_follows_the_square_of_the_signal():
    found = {strength: [] for strength in (0.0, 2.0, 6.0)}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        y, fold = np.arange(60) % 2 * 2 - 1, np.arange(60) // 2 % 5
        noise = rng.standard_normal((60, 6))
        for strength, values in found.items():
            values.append(Design(y, fold).squared(noise + strength / 2 * y[:, None] * np.eye(6)[0])[0, 0])
    means = {strength: np.mean(values) for strength, values in found.items()}
    assert abs(means[0.0]) < 0.15  # an AUROC of its best direction would be far above one half
    assert means[6.0] / means[2.0] == pytest.approx(9, rel=0.15)  # no ceiling


def test_scalar_strength_is_signed():
    scores = np.array([[0.0], [2.0], [4.0], [6.0]])
    positive = np.array([False, False, True, True])
    assert scalar_signal_squared(scores, positive)[0, 0] == pytest.approx(16.0)  # means 1 and 5, spread 1
    assert scalar_signal_squared(-scores, positive)[0, 0] == pytest.approx(-16.0)


def test_crossings_by_hand():
    at, plateau, _ = crossings(np.array([[0.0, 0.0, 4.0, 16.0, 16.0, 16.0], [-1.0] * 6]))
    assert plateau[0] == 16 and plateau[1] == 0
    assert at[0].tolist() == pytest.approx([1.25, 2.0, 2 + 5 / 12])  # 1, 4 and 9 of 16
    assert np.isnan(at[1]).all()


def test_nothing_is_said_without_finite_strengths_or_beyond_the_ratio():
    nothing = rises(Strength(np.full((2, 5), np.nan), np.eye(10), 30))
    assert not order_of(*nothing).told and np.isnan(nothing[0].interval()).all()
    strong = 100.0 * (np.arange(8) >= 2)
    found = order_of(*rises(Strength(np.stack([strong, 0.01 * strong[::1]]), 1e-6 * np.eye(16), 100)))
    assert found.ratio == pytest.approx(10, rel=0.05) and found.first == 0 and not found.told
    assert "cannot be told, because a is 10.0 times stronger" in order_words(found, ("a", "b"))


def test_copies_of_a_group_do_not_count_as_more_items():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((5, 40, 4)), np.arange(40) % 2 * 2 - 1
    groups, fold = np.arange(40), np.arange(40) // 2 % 5
    once = measure_strength(x, y, groups, fold)
    twice = measure_strength(np.repeat(x, 2, 1), np.repeat(y, 2), np.repeat(groups, 2), np.repeat(fold, 2))
    np.testing.assert_allclose(twice.squared, once.squared, rtol=1e-8)
    np.testing.assert_allclose(twice.covariance, once.covariance, rtol=1e-6, atol=1e-9)
    assert twice.groups == once.groups == 40
