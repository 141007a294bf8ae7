"""SASA's probe and its rivals on equal terms: scale and rotation do not count, choices are paid for."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from lvlm_lens.defenses.contest import decide, enter, repeated_splits
from lvlm_lens.defenses.probe import LogisticProbe
from lvlm_lens.defenses.tuned import CS, TunedProbe, coordinates, inner_folds, tuned_scores


def items(n: int, width: int, strength: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and groups of two."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(n) % 2
    features = rng.normal(size=(n, width))
    features[:, 0] += strength * labels
    return features, labels, np.arange(n) // 2


def test_coordinates_keep_every_distance() -> None:
    rows = np.random.default_rng(0).normal(3, 1, (12, 50))
    own = coordinates(rows)
    assert own.shape == (12, 11)
    distances = [np.linalg.norm(x[:, None] - x[None], axis=2) for x in (rows, own)]
    assert np.allclose(*distances)
    assert np.allclose(coordinates(rows[:, :5]), rows[:, :5] - rows[:, :5].mean(0))
    assert coordinates(np.ones((6, 9))).shape == (6, 1)


def test_scores_are_scikit_learns_at_the_chosen_c_and_blind_to_scale_and_rotation() -> None:
    features, labels, groups = items(60, 90, 2.0, 0)
    train = np.arange(60) < 40
    fold = inner_folds(labels, groups, train, 0)
    scores, inner, chosen = tuned_scores(coordinates(features), labels, train[None], [fold])
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(90, 90)))[0]
    again = tuned_scores(coordinates(3 * features @ turn + 5), labels, train[None], [fold])
    assert np.allclose(scores[0, 40:], again[0][0, 40:], atol=1e-2) and chosen == again[2] and inner == again[1]
    spread = features[train].var(0).sum()
    theirs = LogisticRegression(C=chosen[0] / spread, class_weight="balanced", tol=1e-10, max_iter=10000)
    expected = theirs.fit(features[train], labels[train]).decision_function(features[40:])
    assert np.allclose(scores[0, 40:], expected, atol=2e-2 * np.abs(expected).max())
    # raw features with C = 1, as before: three times the same features are another probe
    raw, large = (
        LogisticProbe(1.0).fit(k * features[train], labels[train]).decision_function(k * features) for k in (1, 3)
    )
    assert np.abs(raw - large).max() > 0.1 * np.abs(raw).max()


def test_probe_for_other_samples_is_the_same_probe() -> None:
    features, labels, groups = items(40, 8, 2.0, 3)
    probe = TunedProbe().fit(features, labels, groups)
    assert probe.C_ in CS
    spread = features.var(0).sum()
    theirs = LogisticRegression(C=probe.C_ / spread, class_weight="balanced", tol=1e-10, max_iter=10000)
    assert np.allclose(probe.decision_function(features), theirs.fit(features, labels).decision_function(features),
                       atol=1e-3)  # fmt: skip
    assert TunedProbe().fit(np.ones((4, 3)), [0, 1, 0, 1], range(4)).decision_function(np.ones((1, 3))) == 0


def test_same_features_times_three_are_equivalent_and_the_informative_block_is_chosen() -> None:
    features, labels, groups = items(120, 6, 1.5, 1)
    noise = np.random.default_rng(5).normal(size=features.shape)
    splits = repeated_splits(labels, groups, 0)
    assert splits.trains.shape == (15, 120) and splits.test_to_train == pytest.approx(0.25)
    for train in splits.trains:
        assert not set(groups[train]) & set(groups[~train])
    entries = {
        "sasa": enter([("noise", noise), ("good", coordinates(features))], splits),
        "times three": enter([("good", coordinates(3 * features))], splits),
        "nothing": enter([("noise", coordinates(noise))], splits),
    }
    assert entries["sasa"].chosen.count("good") == 15
    rows = {row["rival"]: row for row in decide(entries, "sasa", splits)}
    assert rows["times three"]["verdict"] == "equivalent" and abs(rows["times three"]["value"]) < 1e-3
    assert rows["nothing"]["verdict"] == "better" and rows["nothing"]["low"] > 0
    assert rows["nothing"]["rival_chose_in"] == 15 and rows["nothing"]["sasa_chose"] == "good"


def test_too_few_groups_for_a_choice_of_c() -> None:
    labels, groups = np.array([0, 1, 1, 0]), np.array([0, 1, 1, 0])
    assert inner_folds(labels, groups, np.ones(4, bool), 0) is None
    scores, inner, chosen = tuned_scores(np.eye(5)[:, :4][[0, 1, 2, 3]], labels, np.array([[1, 1, 0, 0]]) == 1, [None])
    assert np.isfinite(scores[0, 2:]).all() and np.isnan(inner[0]) and chosen[0] in CS
