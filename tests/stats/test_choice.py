"""Best values, thresholds and excesses against scikit-learn, loops, and closed forms."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lvlm_lens.stats.choice import fold_aurocs, simultaneous_band, value_chosen_elsewhere
from lvlm_lens.stats.groups import sample_words, share_excess
from lvlm_lens.stats.threshold import above_by_block, above_threshold


def test_the_block_is_chosen_on_the_other_folds():
    rng = np.random.default_rng(0)
    scores, labels, fold = rng.standard_normal((60, 4)), np.arange(60) % 2, np.arange(60) // 2 % 3
    value = value_chosen_elsewhere(*fold_aurocs(scores, labels, fold))[0]
    parts = []
    for k in range(3):
        by_block = np.zeros(4)
        for other in {0, 1, 2} - {k}:
            rows = fold == other
            by_block += [roc_auc_score(labels[rows], scores[rows, b]) for b in range(4)]
        parts.append(roc_auc_score(labels[fold == k], scores[fold == k, by_block.argmax()]))
    assert value == pytest.approx(np.mean(parts))


def test_choosing_among_many_useless_blocks_gains_nothing():
    values = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        pairs = fold_aurocs(rng.standard_normal((80, 30)), np.arange(80) % 2, rng.permutation(80) % 5)
        values.append(value_chosen_elsewhere(*pairs)[0])
    assert np.mean(values) == pytest.approx(0.5, abs=0.02)


def test_a_simultaneous_band_holds_whole_curves():
    rng = np.random.default_rng(1)
    low, high = simultaneous_band(np.zeros(20), rng.standard_normal((4000, 20)))
    fresh = rng.standard_normal((4000, 20))
    assert np.mean(((low <= fresh) & (fresh <= high)).all(1)) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("positives", [0.1, 0.5, 0.9])
def test_false_positives_are_as_stated_whatever_the_balance(positives):
    flags = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        labels = (np.arange(200) < 200 * positives).astype(int)
        scores = rng.standard_normal((200, 8)) + 1.5 * labels[:, None] + 3 * positives
        flags += above_threshold(scores, labels, rng.permutation(200) % 5)[labels == 0].tolist()
    assert 0.06 <= np.mean(flags) <= 0.12


def test_too_few_negatives_perceive_nothing():
    labels, fold = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 1] * 4)
    assert not above_by_block(np.arange(8.0)[:, None], labels, fold).any()


def test_excess_is_newcombes_interval():
    value, low, high = share_excess([1] * 56 + [0] * 14, [1] * 48 + [0] * 32)  # Newcombe 1998, example (a)
    assert (value, low, high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_pure_groups_are_counted_as_groups():
    assert sample_words([0, 0, 1, 1], ["a", "a", "b", "b"]) == "2 groups"
    assert sample_words([0, 1, 0, 1], ["a", "a", "b", "b"]) == "4 items in 2 groups"
    assert sample_words([0, 1, 0, 1]) == "4 items"
