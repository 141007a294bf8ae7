from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lvlm_lens.bench.probe import bench_probe, probe_table
from lvlm_lens.errors import DataError, NumericalError, UsageError
from lvlm_lens.measures.linear_probe import LinearProbe
from lvlm_lens.stats.crossfit import Settings, _jobs, fold_masks, grid_coefficients, grid_scores, out_of_fold
from lvlm_lens.stats.resampling import group_folds

CS = [1e-3, 0.1, 10.0]


def activations(n: int, d: int, seed: int = 0, decay: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features of very unequal size, and labels that a few of them carry."""
    rng = np.random.default_rng(seed)
    mixing = np.linalg.qr(rng.standard_normal((d, d)))[0]
    x = (rng.standard_normal((n, d)) * np.arange(1, d + 1) ** -decay) @ mixing
    x = x * rng.uniform(0.1, 10, d) + rng.standard_normal(d)
    logit = (x - x.mean(0)) / x.std(0) @ rng.standard_normal(d)
    return x.astype(np.float32), (logit / logit.std() + rng.standard_normal(n) > 0).astype(int)


def sklearn_fit(x, y, c, standardize, weight=None):
    scaler = StandardScaler(with_std=standardize).fit(x.astype(np.float64))
    model = LogisticRegression(C=c, tol=1e-10, max_iter=100_000, class_weight=weight)
    model.fit(scaler.transform(x.astype(np.float64)), y)
    coef = model.coef_ / (scaler.scale_ if standardize else 1.0)
    return coef, model.intercept_ - coef @ scaler.mean_


@pytest.mark.parametrize(("n", "d"), [(200, 40), (60, 150)])  # n >= d: scatter matrix; n < d: Gram matrix
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("weight", [None, "balanced"])
def test_coefficients_are_sklearns(n, d, standardize, weight):
    x, y = activations(n, d)
    masks = fold_masks(group_folds(y, None, 3))
    coef, intercept = grid_coefficients(x, y[:, None], masks, CS, Settings(standardize, weight))
    for m, mask in enumerate(masks):
        for at, c in enumerate(CS):
            expected, b = sklearn_fit(x[mask], y[mask], c, standardize, weight)
            assert np.linalg.norm(coef[m, 0, at] - expected) <= 1e-4 * np.linalg.norm(expected)
            assert intercept[m, 0, at, 0] == pytest.approx(b[0], abs=1e-3)


@pytest.mark.parametrize(("n", "d"), [(150, 20), (50, 80)])
@pytest.mark.parametrize("standardize", [True, False])
def test_multinomial_coefficients_are_sklearns(n, d, standardize):
    x, _ = activations(n, d)
    y = np.argsort(x @ np.random.default_rng(1).standard_normal((d, 3)), 1)[:, 0]
    everyone = np.ones((1, n), dtype=bool)
    coef, _ = grid_coefficients(x, y[:, None], everyone, CS, Settings(standardize), classes=3)
    for at, c in enumerate(CS):
        expected, _ = sklearn_fit(x, y, c, standardize)
        assert np.linalg.norm(coef[0, 0, at] - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize(("n", "d"), [(400, 30), (300, 350)])
def test_folds_that_share_a_rotation_keep_their_own_standardisation(n, d):
    x, y = activations(n, d)
    masks = fold_masks(group_folds(y, None, 5))
    jobs = list(_jobs(x, masks, Settings()))
    assert len(jobs) == 1 and jobs[0].whole and 0.01 < np.abs(jobs[0].ratio - 1).max() < 0.5
    coef, _ = grid_coefficients(x, y[:, None], masks, CS, Settings())
    for m, mask in enumerate(masks):
        for at, c in enumerate(CS):
            expected, _ = sklearn_fit(x[mask], y[mask], c, True)
            assert np.linalg.norm(coef[m, 0, at] - expected) <= 1e-4 * np.linalg.norm(expected)


def test_features_that_vanish_in_a_fold_get_a_rotation_of_their_own():
    x, y = activations(60, 12)
    fold = group_folds(y, None, 3)
    x[:, 5] = 0
    x[np.flatnonzero(fold == 1)[:2], 5] = 3.0  # constant wherever fold 1 is left out
    masks = fold_masks(fold)
    assert [1] in [job.masks for job in _jobs(x, masks, Settings()) if not job.whole]
    coef, _ = grid_coefficients(x, y[:, None], masks, CS, Settings())
    for m, mask in enumerate(masks):
        expected, _ = sklearn_fit(x[mask], y[mask], CS[1], True)
        assert np.linalg.norm(coef[m, 0, 1] - expected) <= 1e-4 * np.linalg.norm(expected)
    assert coef[1, 0, :, 0, 5] == pytest.approx(0)


def test_rms_is_one_scale_for_all_features():
    x, y = activations(80, 20)
    coef, _ = grid_coefficients(x, y[:, None], np.ones((1, 80), bool), [0.1], Settings("rms"))
    scale = np.sqrt(x.astype(np.float64).var(0).mean())
    expected, _ = sklearn_fit(x / scale, y, 0.1, False)
    np.testing.assert_allclose(coef[0, 0, 0, 0], expected[0] / scale, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("standardize", [True, "rms"])
def test_scores_are_those_of_the_coefficients_and_of_no_training_sample(standardize):
    x, y = activations(90, 30)
    masks = fold_masks(group_folds(y, None, 3))
    settings = Settings(standardize)
    scores = grid_scores(x, y[:, None], masks, CS, settings)
    coef, b = grid_coefficients(x, y[:, None], masks, CS, settings)
    for m, mask in enumerate(masks):
        assert np.isnan(scores[mask, m]).all()
        expected = x[~mask].astype(np.float64) @ coef[m, 0, :, 0].T + b[m, 0, :, 0]
        np.testing.assert_allclose(scores[~mask, m, 0, :, 0], expected, atol=1e-6)


def test_nested_choice_equals_the_plain_double_loop():
    x, y = activations(90, 30, seed=3)
    fold = group_folds(y, None, 4, 0)
    scores, used = out_of_fold(x, y[:, None], fold, CS, Settings())
    for outer in range(4):
        quality = []
        for c in CS:
            inner = np.full(len(y), np.nan)
            for k in set(range(4)) - {outer}:
                train = (fold != outer) & (fold != k)
                model = make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-9, max_iter=10_000))
                inner[fold == k] = model.fit(x[train], y[train]).decision_function(x[fold == k])
            wins = pairs = 0
            for k in set(range(4)) - {outer}:
                size = (y[fold == k] == 1).sum() * (y[fold == k] == 0).sum()
                wins += size * roc_auc_score(y[fold == k], inner[fold == k])
                pairs += size
            quality.append(wins / pairs)
        assert used[outer, 0] == CS[int(np.argmax(quality))]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=used[outer, 0], tol=1e-9, max_iter=10_000))
        model.fit(x[fold != outer], y[fold != outer])
        np.testing.assert_allclose(scores[fold == outer, 0, 0], model.decision_function(x[fold == outer]), atol=1e-2)


@pytest.fixture(scope="module")
def stepped():
    """Five blocks; harm is readable from block 2 on.  Pairs are groups."""
    rng = np.random.default_rng(0)
    y, pairs = np.arange(240) % 2, np.arange(240) // 2
    acts = rng.standard_normal((240, 5, 12)).astype(np.float32)
    acts[:, 2:, 3] += 1.5 * (y[:, None] - 0.5)
    return acts, y, pairs


def test_estimator_finds_the_step_and_its_null_does_not(stepped):
    acts, y, pairs = stepped
    probe = LinearProbe(permutations=20, replicates=200).fit(acts, y, pairs, "perception")
    curve = probe.curve_
    assert curve.name == "perception" and curve.n == 240 and curve.meta["groups"] == 120
    assert (curve.value[:2] < 0.62).all() and (curve.value[2:] > 0.78).all()
    assert (curve.low[2:] > curve.null[2:]).all() and (curve.low[:2] < curve.null[:2]).all()
    assert curve.null_draws.shape == (20, 5) and abs(curve.null_draws.mean() - 0.5) < 0.02
    np.testing.assert_array_equal(probe.curve_.value, LinearProbe(permutations=2).fit(acts, y, pairs).curve_.value)
    assert probe.coef_.shape == (5, 12) and np.abs(probe.coef_[3]).argmax() == 3
    assert probe.predict_proba(acts).shape == (240, 5, 2) and (probe.score(acts, y)[2:] > 0.8).all()
    assert (probe.predict(acts)[:, 3] == y).mean() > 0.7
    for metric in ("auprc", "tpr_at_1_fpr", "ece"):
        other = probe.curve(metric)
        assert (other.low <= other.value + 0.1).all() and other.null is not None
    assert probe.get_params()["C"] == 0.01


def test_a_curve_alone_is_the_curve_of_a_whole_fit(stepped):
    x, y, groups = stepped
    settings = {"permutations": 20, "replicates": 100}
    whole, alone = LinearProbe(**settings).fit(x, y, groups), LinearProbe(**settings).fit(x, y, groups, whole=False)
    assert whole.curve_.to_dict() == alone.curve_.to_dict()
    assert whole.coef_.shape == (x.shape[1], x.shape[2]) and not hasattr(alone, "coef_")


def test_scores_do_not_depend_on_rotation(stepped):
    acts, y, pairs = stepped
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0]
    plain, turned = (
        LinearProbe(C=1.0, standardize="rms", permutations=0, replicates=0).fit(a, y, pairs).scores_
        for a in (acts.astype(np.float64), acts.astype(np.float64) @ q)
    )
    np.testing.assert_allclose(plain, turned, atol=1e-4)


def test_transfer_baselines_twin_and_random_features(stepped):
    acts, y, pairs = stepped
    rng = np.random.default_rng(1)
    probe = LinearProbe(permutations=20, replicates=100)
    weak = (y + 2 * rng.standard_normal(240))[:, None].astype(np.float32)
    fitted = probe.fit(acts, y, pairs)
    beside = fitted.baseline(weak)
    assert beside.scalar and 0.55 < beside.value < 0.75
    twin = LinearProbe(permutations=0, replicates=0).fit(rng.standard_normal(acts.shape), y, pairs).curve_
    assert (np.abs(twin.value - 0.5) < 0.15).all()
    moved = fitted.transfer(acts[:100] + 0.1 * rng.standard_normal((100, 5, 12)), y[:100], pairs[:100])
    assert (moved.value[2:] > 0.75).all() and (moved.null[2:] < 0.7).all()
    noise = fitted.baseline(rng.standard_normal((240, 12), dtype=np.float32))
    assert noise.low < 0.5 < noise.high


def test_bad_input_is_named(stepped):
    acts, y, pairs = stepped
    with pytest.raises(DataError, match="1 class"):
        LinearProbe().fit(acts, np.ones(240), pairs)
    with pytest.raises(DataError, match="too few for 5 folds"):
        LinearProbe().fit(acts, y, np.arange(240) // 100)
    with pytest.raises(UsageError, match="240 samples, but 239"):
        LinearProbe().fit(acts, y[:-1], pairs[:-1])
    with pytest.raises(UsageError, match="C is 0"):
        LinearProbe(C=0).fit(acts, y, pairs)
    broken = acts.copy()
    broken[7, 3, 0] = np.nan
    with pytest.raises(NumericalError, match="block 3"):
        LinearProbe(permutations=0).fit(broken, y, pairs)
    with pytest.raises(UsageError, match="width 11"):
        LinearProbe(permutations=0, replicates=0).fit(acts, y, pairs).score(acts[:, :, 1:], y)
    with pytest.raises(UsageError, match="class_weight"):
        LinearProbe(class_weight="even").fit(acts, y, pairs)


def test_bench_reports_every_ratio_and_that_the_results_agree():
    result = bench_probe(samples=80, blocks=2, width=120, cs=(1e-3, 0.1), folds=3, sklearn_blocks=1)
    assert set(result["ratio"]) == {"sklearn_float32_default", "sklearn_float64_default", "sklearn_equal_accuracy"}
    assert result["error"]["lvlm_lens"] <= 1e-4 >= result["error"]["sklearn_equal_accuracy"]
    assert result["extrapolated"] and result["score_difference"] < 1e-3
    assert "multiplied" in probe_table(result)


@pytest.mark.parametrize("standardize", [True, False])
def test_a_fold_whose_training_rows_are_all_equal_scores_by_the_intercept(standardize):
    """Few of many items have a picture: in one fold no training row has one.  More features than rows."""
    x = np.zeros((16, 30), dtype=np.float32)
    x[:2] = np.random.default_rng(0).standard_normal((2, 30))
    y, groups = np.arange(16) % 2, np.arange(16) // 2
    probe = LinearProbe(folds=4, permutations=20, replicates=100, standardize=standardize, C=1.0).fit(x, y, groups)
    for fold in range(4):
        train, held = probe.fold_ != fold, probe.fold_ == fold
        scaler = StandardScaler(with_std=standardize).fit(x[train])
        judge = LogisticRegression(tol=1e-10, max_iter=10_000).fit(scaler.transform(x[train]), y[train])
        expected = judge.decision_function(scaler.transform(x[held]))
        np.testing.assert_allclose(probe.scores_[held, 0], expected, atol=1e-3)
