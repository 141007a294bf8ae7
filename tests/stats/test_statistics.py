from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from lvlm_lens.errors import DataError, NumericalError
from lvlm_lens.stats import auroc as rank
from lvlm_lens.stats import resampling as st
from lvlm_lens.stats.groups import paired_bootstrap


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 301)
    scores = np.round(rng.standard_normal((301, 4)) + 0.7 * labels[:, None], 1)  # rounded: many ties
    return scores, labels


def test_auroc_and_auprc_equal_sklearn_with_ties_and_weights(scored):
    scores, labels = scored
    weights = np.random.default_rng(1).integers(0, 4, (5, len(labels))).astype(float)
    for w, roc, pr in zip(
        weights,
        rank.weighted_auroc(scores, labels, weights),
        rank.weighted_auprc(scores, labels, weights),
        strict=True,
    ):
        for at, column in enumerate(scores.T):
            assert roc[at] == pytest.approx(roc_auc_score(labels, column, sample_weight=w), abs=1e-12)
            assert pr[at] == pytest.approx(average_precision_score(labels, column, sample_weight=w), abs=1e-12)
    assert rank.auroc(scores[:, 0], labels) == pytest.approx(roc_auc_score(labels, scores[:, 0]))


def test_auroc_of_gaussians_is_the_published_closed_form():
    rng = np.random.default_rng(2)
    labels = np.arange(20_000) % 2
    shift = 1.0
    scores = rng.standard_normal(20_000) + shift * labels
    assert rank.auroc(scores, labels) == pytest.approx(norm.cdf(shift / np.sqrt(2)), abs=0.01)


def test_strata_compare_only_inside_a_stratum(scored):
    scores, labels = scored
    fold = np.arange(len(labels)) % 3
    offset = scores + 100 * fold[:, None]  # probes of different folds have different offsets
    pairs = np.array([(labels[fold == k] == 1).sum() * (labels[fold == k] == 0).sum() for k in range(3)])
    inside = np.array([rank.auroc(scores[fold == k], labels[fold == k]) for k in range(3)])
    expected = (pairs[:, None] * inside).sum(0) / pairs.sum()
    np.testing.assert_allclose(rank.auroc(offset, labels, fold), expected, atol=1e-12)


def test_tpr_at_fpr_equals_the_roc_curve(scored):
    scores, labels = scored
    for at, column in enumerate(scores.T):
        fpr, tpr, _ = roc_curve(labels, column, drop_intermediate=False)
        assert rank.weighted_tpr_at_fpr(scores, labels, 0.05)[0][at] == pytest.approx(tpr[fpr <= 0.05].max())


def test_calibration_error_of_known_probabilities():
    probability = np.array([0.15, 0.15, 0.15, 0.15, 0.95, 0.95])
    labels = np.array([0, 0, 1, 1, 1, 1])
    expected = (4 * abs(0.5 - 0.15) + 2 * abs(1 - 0.95)) / 6
    assert rank.expected_calibration_error(probability, labels)[0, 0] == pytest.approx(expected)
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    assert rank.expected_calibration_error(p, rng.random(20_000) < p)[0, 0] < 0.02


def test_bootstrap_draws_whole_groups_and_is_the_same_for_other_samples_of_the_groups():
    groups = np.array(["b", "a", "b", "c", "a"])
    draws = st.Resampling(groups, 50, 3)
    weights = draws.weights()
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 1] == weights[:, 4]).all()
    assert (draws.counts.sum(1) == 3).all()
    np.testing.assert_array_equal(draws.weights(np.array(["c", "b"])), weights[:, [3, 0]])
    with pytest.raises(DataError, match="'z'"):
        draws.weights(np.array(["z"]))


def test_cluster_bootstrap_interval_covers_and_is_wider_than_the_naive_one():
    """Copies of one sample carry no information: the interval must not shrink with them."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    single = rng.standard_normal(60) + labels
    copies, groups = np.repeat(single, 5), np.repeat(np.arange(60), 5)
    widths = {}
    for name, g in (("groups", groups), ("naive", None)):
        draws = st.Resampling(g, 500, 0, n=300).weights()
        low, high = st.interval(rank.weighted_auroc(copies, np.repeat(labels, 5), draws)[:, 0])
        widths[name] = high - low
    draws = st.Resampling(None, 500, 0, n=60).weights()
    low, high = st.interval(rank.weighted_auroc(single, labels, draws)[:, 0])
    assert widths["groups"] == pytest.approx(high - low, rel=0.15)
    assert widths["naive"] < 0.6 * widths["groups"]


def test_bootstrap_coverage_is_nominal():
    truth = norm.cdf(1 / np.sqrt(2))
    rng = np.random.default_rng(5)
    labels = np.arange(200) % 2
    scores = rng.standard_normal((200, 150)) + labels[:, None]  # 150 independent experiments as columns
    low, high = st.interval(rank.weighted_auroc(scores, labels, st.Resampling(None, 400, 0, n=200).weights()))
    assert 0.88 <= ((low <= truth) & (truth <= high)).mean() <= 0.99


def test_thousand_replicates_over_33_blocks_are_fast():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    weights = st.Resampling(np.arange(600) // 2, 1000).weights()
    begin = time.process_time()
    assert rank.weighted_auroc(rng.standard_normal((600, 33)), labels, weights).shape == (1000, 33)
    assert time.process_time() - begin < 2


def test_shuffles_swap_within_pairs_permute_pure_groups_and_keep_the_counts():
    pairs, labels = np.arange(40) // 2, np.arange(40) % 2
    drawn = st.permute_labels(labels, pairs, 30)
    assert (drawn.reshape(30, 20, 2).sum(2) == 1).all() and 0.3 < (drawn == labels).mean() < 0.7
    pure = np.repeat(np.arange(12) % 2, 3)
    drawn = st.permute_labels(pure, np.repeat(np.arange(12), 3), 30).reshape(30, 12, 3)
    assert (drawn == drawn[:, :, :1]).all() and len({tuple(row[:, 0]) for row in drawn}) > 20
    uneven = st.permute_labels(labels, np.random.default_rng(0).integers(0, 9, 40), 5)
    assert (uneven.sum(1) == labels.sum()).all()


def test_folds_keep_groups_whole_and_stratify():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 300)
    labels = rng.integers(0, 2, 300)
    fold = st.group_folds(labels, groups, 5, 1)
    assert all(len(np.unique(fold[groups == g])) == 1 for g in np.unique(groups))
    assert np.abs([labels[fold == k].mean() - labels.mean() for k in range(5)]).max() < 0.12
    np.testing.assert_array_equal(fold, st.group_folds(labels, groups, 5, 1))


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (np.ones(10, int), None, "two classes"),
        (np.arange(10) % 2, np.arange(10) // 4, "too few for 5 folds"),
        (np.r_[np.ones(3, int), np.zeros(12, int)], np.r_[np.zeros(3, int), np.arange(12) // 2 + 1], "one group only"),
        (np.arange(10) % 2, np.arange(9), "9 groups for 10 labels"),
    ],
)
def test_folds_say_what_is_wrong(labels, groups, message):
    with pytest.raises(DataError, match=message):
        st.group_folds(labels, groups, 5)


def test_labels_and_scores_are_checked():
    with pytest.raises(DataError, match="1 class"):
        rank.auroc(np.ones(4), np.ones(4))
    with pytest.raises(NumericalError, match="NaN"):
        rank.auroc(np.array([1.0, np.nan]), np.array([0, 1]))


def test_paired_bootstrap():
    rng = np.random.default_rng(0)
    base = rng.standard_normal(500)
    assert paired_bootstrap(base + 0.5, base)["p_value"] < 0.01
    assert paired_bootstrap(base, base)["p_value"] == 1


def test_weighted_mean_leaves_out_nan():
    values = np.array([[1.0, np.nan], [3.0, 5.0]])
    np.testing.assert_allclose(st.weighted_mean(values, np.array([[1.0, 3.0]])), [[2.5, 5.0]])
