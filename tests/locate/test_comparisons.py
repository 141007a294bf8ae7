"""A role beats a baseline in pairs: the same items resampled for both."""

import json

import numpy as np
import pytest

from lvlm_lens.locate.roles import comparisons, find_role
from lvlm_lens.measures.linear_probe import LinearProbe
from lvlm_lens.stats.curve import Baseline, Curve, curve_from_draws


def two_curves(gain, shared, folds=None, seed=0):
    """A step of height ``gain`` above a baseline of 0.7; ``shared`` is the noise that both have in common."""
    rng = np.random.default_rng(seed)
    common, own, other = shared * rng.standard_normal((1000, 1)), 0.004 * rng.standard_normal((1000, 4)), 0.004
    value = np.array([0.7, 0.7, 0.7 + gain, 0.7 + gain])
    null = 0.5 + 0.01 * rng.standard_normal((100, 4))
    meta = {} if folds is None else {"folds": folds}
    curve = curve_from_draws("c", range(4), value, value + common + own, null, meta=meta)
    drawn = 0.7 + common + other * rng.standard_normal((1000, 1))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return curve, Baseline(0.7, float(low), float(high), drawn)


def test_what_moves_together_is_compared_together():
    curve, baseline = two_curves(0.05, shared=0.04)
    assert curve.low[2] < baseline.high  # the two intervals overlap
    paired = find_role("c", curve.with_baseline("text_only", baseline), ())
    alone = find_role("c", curve.with_baseline("text_only", Baseline(0.7, baseline.low, baseline.high)), ())
    assert paired.found and paired.onset == 2 and not alone.found
    flat, baseline = two_curves(0.0, shared=0.04)
    assert not find_role("c", flat.with_baseline("text_only", baseline), ()).found


def test_cross_validated_curves_are_compared_with_wider_intervals():
    # sqrt(1 + 5 / 4) = 1.5 for five folds
    for folds, factor in ((None, 1.0), (5, 1.5), (2, np.sqrt(3.0))):
        curve, baseline = two_curves(0.05, 0.04, folds)
        curve = curve.with_baseline("text_only", baseline)
        best = int(np.argmax(curve.value))
        difference = curve.replicates[:, best] - baseline.replicates[:, 0]
        expected = 0.05 - factor * (0.05 - np.quantile(difference, 0.025))
        assert comparisons(curve, best)["text_only"][1] == pytest.approx(expected)


def test_replicates_of_baselines_survive_json_and_are_dropped_with_the_others():
    curve, baseline = two_curves(0.05, 0.04)
    curve = curve.with_baseline("text_only", baseline).with_baseline("random_twin", two_curves(0, 0.04)[0])
    back = Curve.from_dict(json.loads(json.dumps(curve.to_dict(draws=True), allow_nan=False)))
    assert np.allclose(back.baselines["text_only"].replicates, baseline.replicates)
    best = int(np.argmax(curve.value))
    again, first = comparisons(back, best), comparisons(curve, best)
    assert {k: pytest.approx(v) for k, v in first.items()} == again
    assert "replicates" not in json.dumps(curve.to_dict())
    assert all(b.replicates is None for b in curve.without_draws().baselines.values())


def test_probe_and_baseline_share_their_draws():
    rng = np.random.default_rng(1)
    y = np.arange(120) % 2
    x = rng.standard_normal((120, 2, 6)) + 0.6 * y[:, None, None]
    fitted = LinearProbe(permutations=20, replicates=100).fit(x, y)
    again = fitted.baseline(x[:, 1])  # the same features: the same number in every replicate
    assert np.array_equal(again.replicates[:, 0], fitted.curve_.replicates[:, 1])
