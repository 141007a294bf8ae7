"""Every measure: the common battery, then its own closed form or plain loop."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import norm
from skdim.id import TwoNN

from lvlm_lens.causal.head_scan import ships_kl
from lvlm_lens.errors import DataError, UsageError
from lvlm_lens.locate.roles import find_role
from lvlm_lens.measures.angular_gap import AngularGap
from lvlm_lens.measures.block_cka import BlockCKA
from lvlm_lens.measures.check_measure import check_measure
from lvlm_lens.measures.concept_probe import ConceptProbe
from lvlm_lens.measures.difference_consistency import DifferenceConsistency
from lvlm_lens.measures.head_attribution import HeadContrast, safety_specific_heads, singular_vector_score
from lvlm_lens.measures.intrinsic_dimension import IntrinsicDimension, two_nn
from lvlm_lens.measures.label_cka import LabelCKA
from lvlm_lens.measures.lens_readability import LensReadability
from lvlm_lens.measures.mean_difference import MeanDifference
from lvlm_lens.measures.modality_cosine import ModalityCosine
from lvlm_lens.measures.refusal_lens import RefusalLens
from lvlm_lens.measures.shared_semantics import SharedSemantics
from lvlm_lens.measures.trajectory import Trajectory
from lvlm_lens.measures.unembedding import Unembedding
from lvlm_lens.stats.cka import cka

N, L, D, V = 120, 4, 16, 40
REFUSAL = [3, 7]
SMALL = {"replicates": 100, "permutations": 40}


def rms_norm(h: torch.Tensor) -> torch.Tensor:
    return h * torch.rsqrt((h * h).mean(-1, keepdim=True) + 1e-6)


@pytest.fixture(scope="module")
def head() -> Unembedding:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(V, D, generator=generator)
    weight[REFUSAL] += 6 * torch.eye(D)[0]  # refusal tokens are written along axis 0
    weight[11] += 6 * torch.eye(D)[1]  # an answer token along axis 1
    return Unembedding(weight, rms_norm)


@pytest.fixture(scope="module")
def pairs_and_labels():
    return np.arange(N) // 2, np.arange(N) % 2


@pytest.fixture(scope="module")
def acts(pairs_and_labels) -> np.ndarray:
    """Harm turns axis 0 on, harmlessness axis 1, from block 2 on; noise elsewhere."""
    _, harmful = pairs_and_labels
    x = np.random.default_rng(0).standard_normal((N, L, D))
    x[:, 2:, 0] += 5 * harmful[:, None]
    x[:, 2:, 1] += 5 * (1 - harmful[:, None])
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def shared(pairs_and_labels) -> np.ndarray:
    """Both members of a pair carry the pair's own vector from block 2 on."""
    pairs, _ = pairs_and_labels
    rng = np.random.default_rng(1)
    own = 2 * rng.standard_normal((N // 2, D))
    x = rng.standard_normal((N, L, D))
    x[:, 2:] += own[pairs][:, None]
    return x.astype(np.float32)


@pytest.mark.parametrize(
    "measure",
    [
        partial(AngularGap, **SMALL),
        partial(AngularGap, "mean_of_angles", pairs=200, **SMALL),
        partial(DifferenceConsistency, **SMALL),
        partial(MeanDifference, **SMALL),
        partial(LabelCKA, **SMALL),
    ],
    ids=lambda m: f"{m.func.__name__}{m.args}",
)
def test_battery_on_harm(measure, acts, pairs_and_labels):
    pairs, harmful = pairs_and_labels
    done = check_measure(measure, acts, harmful, pairs, signal_from=2)
    assert {"null", "signal", "errors"} <= set(done)


@pytest.mark.parametrize(
    "measure",
    [partial(SharedSemantics, **SMALL), partial(ModalityCosine, **SMALL), partial(ModalityCosine, True, **SMALL)],
)
def test_battery_on_pairs(measure, shared, pairs_and_labels):
    pairs, member = pairs_and_labels
    check_measure(measure, shared, member, pairs, signal_from=2)


@pytest.mark.parametrize("centred", [False, True])
def test_battery_on_lenses(centred, acts, head, pairs_and_labels):
    pairs, harmful = pairs_and_labels
    check_measure(partial(RefusalLens, head, REFUSAL, centred, **SMALL), acts, harmful, pairs, signal_from=2)


def test_battery_on_the_trajectory(acts, head, pairs_and_labels):
    pairs, harmful = pairs_and_labels
    check_measure(partial(Trajectory, head, REFUSAL, **SMALL), acts, harmful, pairs, signal_from=2)


def test_battery_on_readability(acts, head, pairs_and_labels):
    pairs, harmful = pairs_and_labels
    words = [*REFUSAL, 11]
    check_measure(partial(LensReadability, head, words, top=2, **SMALL), acts, harmful, pairs, labelled=False)
    curve = LensReadability(head, words, top=2, **SMALL).fit(acts, None, pairs).curve_
    assert curve.low[2:].min() > curve.high[:2].max()


def test_battery_on_concepts(pairs_and_labels):
    rng = np.random.default_rng(2)
    concept = np.arange(N) % 3
    x = rng.standard_normal((N, L, D)).astype(np.float32)
    for c in range(3):
        x[concept == c, 2:, c] += 3
    check_measure(partial(ConceptProbe, folds=4, **SMALL), x, concept.astype(str), np.arange(N) // 4, signal_from=2)


def test_battery_on_heads(pairs_and_labels):
    pairs, harmful = pairs_and_labels
    x = np.random.default_rng(0).random((N, L, 6)).astype(np.float32)
    x[:, 2:, 4] += harmful[:, None]
    check_measure(partial(HeadContrast, **SMALL), x, harmful, pairs, signal_from=2)
    fitted = HeadContrast(**SMALL).fit(x, harmful, pairs)
    assert set(fitted.top(2)) == {(2, 4), (3, 4)}


@pytest.mark.parametrize(
    "measure",
    [partial(IntrinsicDimension, replicates=5, permutations=2), partial(BlockCKA, replicates=20, permutations=5)],
)
def test_battery_on_geometry(measure, acts, pairs_and_labels):
    pairs, harmful = pairs_and_labels
    check_measure(measure, acts, harmful, pairs, labelled=False)


# ---- each measure against its closed form or a plain loop


def test_angular_gap_is_the_plain_double_loop(acts, pairs_and_labels):
    pairs, harmful = pairs_and_labels
    fitted = AngularGap(**SMALL).fit(acts, harmful, pairs)
    x = acts[:, 3].astype(np.float64)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    nn, nm = [], []
    for p in np.flatnonzero(harmful == 0):
        for q in range(N):
            if pairs[p] != pairs[q]:
                (nm if harmful[q] else nn).append(unit[p] @ unit[q])
    expected = abs(np.arccos(np.mean(nn)) - np.arccos(np.mean(nm)))
    assert fitted.curves_["angle_of_mean"].value[3] == pytest.approx(expected)
    expected = abs(np.mean(np.arccos(nn)) - np.mean(np.arccos(nm)))
    assert fitted.curves_["mean_of_angles"].value[3] == pytest.approx(expected)
    assert fitted.range_ is not None and fitted.range_[0] == 2
    published = AngularGap(pairs=5000, **SMALL).fit(acts, harmful, pairs)
    np.testing.assert_allclose(published.curve_.value, fitted.curve_.value, atol=0.05)


def test_difference_consistency_of_a_direction_in_noise():
    """Differences s e + noise of variance 2: mean cosine of two of them is s^2 / (s^2 + 2 d), for large d."""
    rng = np.random.default_rng(0)
    n, d, s = 300, 400, 30.0
    x = rng.standard_normal((2 * n, 1, d))
    x[1::2, 0, 0] += s
    fitted = DifferenceConsistency(**SMALL).fit(x, np.arange(2 * n) % 2, np.arange(2 * n) // 2)
    assert fitted.curve_.value[0] == pytest.approx(s**2 / (s**2 + 2 * d), abs=0.02)
    assert abs(fitted.direction_[0, 0]) > 0.99


def test_mean_difference_reaches_the_gaussian_auroc():
    rng = np.random.default_rng(0)
    harmful = np.arange(4000) % 2
    x = rng.standard_normal((4000, 1, 5))
    x[:, 0, 2] += 1.2 * harmful
    fitted = MeanDifference(**SMALL).fit(x, harmful)
    assert fitted.curve_.value[0] == pytest.approx(norm.cdf(1.2 / np.sqrt(2)), abs=0.02)
    assert fitted.threshold_[0] == pytest.approx(0.6, abs=0.1)


def test_shared_semantics_is_the_plain_loop(shared, pairs_and_labels):
    pairs, member = pairs_and_labels
    fitted = SharedSemantics(**SMALL).fit(shared, member, pairs)
    image, caption = shared[member == 1, 3].astype(np.float64), shared[member == 0, 3].astype(np.float64)

    def cos(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    plain = [
        cos(image[i], caption[i]) - np.mean([cos(image[i], caption[j]) for j in range(N // 2) if j != i])
        for i in range(N // 2)
    ]
    np.testing.assert_allclose(fitted.item_values_[:, 3], plain)


def test_pairs_that_are_no_pairs_are_refused(shared, pairs_and_labels):
    pairs, member = pairs_and_labels
    with pytest.raises(DataError, match="not one of each kind"):
        SharedSemantics().fit(shared, member, pairs // 2)
    with pytest.raises(UsageError, match="pairs="):
        ModalityCosine().fit(shared, member)


@pytest.mark.parametrize("n, d, k", [(100, 3, 3), (900, 64, 10), (200, 128, 128)])
def test_intrinsic_dimension_is_scikit_dimensions(n, d, k):
    rng = np.random.default_rng(0)
    points = rng.standard_normal((n, k)) @ rng.standard_normal((k, d))
    assert two_nn(points) == pytest.approx(TwoNN().fit(points).dimension_, rel=1e-9)


def test_intrinsic_dimension_of_known_manifolds():
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((1000, 3)) @ rng.standard_normal((3, 20))
    assert two_nn(flat) == pytest.approx(3, abs=0.4)
    assert two_nn(np.repeat(flat, 2, 0)) == pytest.approx(two_nn(flat))  # duplicates change nothing
    angle = rng.random(1000) * 2 * np.pi
    circle = np.stack([np.cos(angle), np.sin(angle)], 1) @ rng.standard_normal((2, 20))
    assert two_nn(circle) == pytest.approx(1, abs=0.15)
    fitted = IntrinsicDimension(replicates=5, permutations=3).fit(circle[:, None])
    assert fitted.curve_.value[0] < 1.3 < 1.6 < fitted.curve_.baselines["gaussian"].low[0]  # curved: below its Gaussian


def test_debiased_cka_is_unbiased_where_the_plain_one_saturates():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 500)), rng.standard_normal((60, 500))

    def biased(a, b):
        a, b = a - a.mean(0), b - b.mean(0)
        k, m = a @ a.T, b @ b.T
        return (k * m).sum() / np.linalg.norm(k) / np.linalg.norm(m)

    assert biased(x, y) > 0.8 and abs(cka(x @ x.T, y @ y.T)) < 0.1
    assert cka(x @ x.T, x @ x.T) == pytest.approx(1)
    turned = x @ np.linalg.qr(rng.standard_normal((500, 500)))[0] * 3
    assert cka(x @ x.T, turned @ turned.T) == pytest.approx(1)
    # jointly Gaussian with correlation rho in every coordinate: linear CKA of the population is rho^2
    many = rng.standard_normal((2000, 5))
    noisy = 0.8 * many + 0.6 * rng.standard_normal((2000, 5))
    assert cka(many @ many.T, noisy @ noisy.T) == pytest.approx(0.64, abs=0.04)


def test_block_cka_is_symmetric_with_unit_diagonal(acts):
    matrix = BlockCKA(replicates=10, permutations=3).fit(acts).matrix_
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-6)
    assert matrix[2, 3] > 0.3 > abs(matrix[0, 3])


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("extra", [{}, {"softcap": 5.0}, {"bias": torch.linspace(-1, 1, V)}])
def test_refusal_cosine_is_the_plain_cosine_of_all_logits(centred, extra, acts, head, pairs_and_labels):
    pairs, harmful = pairs_and_labels
    u = Unembedding(head.weight, head.norm, **extra)
    fitted = RefusalLens(u, REFUSAL, centred, **SMALL).fit(acts, harmful, pairs)
    indicator = np.zeros(V)
    indicator[REFUSAL] = 1
    for block in range(L):
        h = rms_norm(torch.from_numpy(acts[:, block]).double())
        logits = h @ head.weight.double().T + extra.get("bias", torch.zeros(V)).double()
        if "softcap" in extra:
            logits = 5 * torch.tanh(logits / 5)
        logits, r = logits.numpy(), indicator
        if centred:
            logits, r = logits - logits.mean(1, keepdims=True), r - r.mean()
        expected = logits @ r / np.linalg.norm(logits, axis=1) / np.linalg.norm(r)
        np.testing.assert_allclose(fitted.cosines_[:, block], expected, atol=1e-5)
    np.testing.assert_allclose(
        fitted.curve_.value, fitted.cosines_[harmful == 1].mean(0) - fitted.cosines_[harmful == 0].mean(0)
    )
    assert set(fitted.safety_blocks_) <= {2} and 0 not in fitted.safety_blocks_
    assert fitted.prompt_scores(acts).shape == (N,)


def test_trajectory_quantities_and_onsets(acts, head, pairs_and_labels):
    pairs, _ = pairs_and_labels
    fitted = Trajectory(head, REFUSAL, **SMALL).fit(acts, None, pairs)
    logp = torch.log_softmax(rms_norm(torch.from_numpy(acts).double()) @ head.weight.T.double(), -1)
    p = logp.exp()
    inside = p[..., REFUSAL].sum(-1)
    np.testing.assert_allclose(
        fitted.refusal_log_odds_, (inside.log() - torch.log1p(-inside)).numpy(), atol=1e-3, rtol=1e-4
    )
    np.testing.assert_allclose(fitted.entropy_, -(p * logp).sum(-1).numpy(), atol=1e-4)
    kl = (p[:, -1:] * (logp[:, -1:] - logp)).sum(-1).numpy()
    np.testing.assert_allclose(fitted.kl_, kl, atol=1e-4)
    assert np.allclose(fitted.kl_[:, -1], 0) and (fitted.answer_rank_[:, -1] == 0).all()
    for i in range(N):
        hits = [t in REFUSAL if fitted.refused_[i] else t == fitted.top1_[i, -1] for t in fitted.top1_[i]]
        expected = next(b for b in range(L) if all(hits[b:]))
        assert fitted.onset_[i] == expected
    role = find_role("expression", fitted.curve_)
    assert role.found and role.onset == 2
    assert fitted.token_curve_.value[-1] == 1


def test_items_that_never_express_are_counted_apart(acts, head, pairs_and_labels):
    pairs, _ = pairs_and_labels
    refused = np.ones(N, dtype=bool)  # a judge says all were refused; the lens never says so for the harmless
    refused[:2] = False
    fitted = Trajectory(head, REFUSAL, **SMALL).fit(acts, refused, pairs)
    summary = fitted.onset_summary()
    assert summary["refused"]["never"] == (fitted.onset_[refused] == -1).sum() > 20
    assert summary["refused"]["median"] in (2, 3)  # not dragged down by -1


def test_a_model_that_never_refuses_has_no_expression(acts, head, pairs_and_labels):
    pairs, _ = pairs_and_labels
    quiet = acts.copy()
    quiet[:, :, 0] -= 8
    role = find_role("expression", Trajectory(head, REFUSAL, **SMALL).fit(quiet, None, pairs).curve_)
    assert not role.found and "refuses nothing" in role.reason


def test_a_handful_of_refusals_is_no_decision_curve(acts, head, pairs_and_labels):
    pairs, _ = pairs_and_labels
    quiet = acts.copy()
    quiet[:, :, 0] -= 8
    quiet[:3] = acts[:3] + 16 * np.eye(acts.shape[2])[0]  # three items that say a refusal word in every block
    fitted = Trajectory(head, REFUSAL, **SMALL).fit(quiet, None, pairs)
    assert fitted.refused_.sum() == 3 and np.isnan(fitted.curve_.value).all()
    role = find_role("expression", fitted.curve_)
    assert not role.found and "refuses only 3 of" in role.reason


def test_lens_ids_are_checked(acts, head, pairs_and_labels):
    pairs, harmful = pairs_and_labels
    with pytest.raises(UsageError, match="vocabulary has 40"):
        RefusalLens(head, [3, 40]).fit(acts, harmful, pairs)
    with pytest.raises(UsageError, match="no refusal_ids"):
        Trajectory(head, []).fit(acts)
    with pytest.raises(UsageError, match="width 15"):
        Trajectory(head, REFUSAL).fit(acts[..., :15])


def test_readability_counts_the_top_tokens(acts, head):
    fitted = LensReadability(head, [*REFUSAL, 11], top=3, **SMALL).fit(acts)
    logits = rms_norm(torch.from_numpy(acts[:, 2])) @ head.weight.T
    top = np.argsort(-logits.numpy(), 1)[:, :3]
    assert fitted.curve_.value[2] == pytest.approx(np.isin(top, [*REFUSAL, 11]).mean())
    assert fitted.curve_.null_mean[0] == pytest.approx(3 / V, abs=0.03)


def test_concepts_drop_what_cannot_be_tested_and_predict(pairs_and_labels):
    rng = np.random.default_rng(0)
    names = np.array(["knife", "apple", "rope"])[np.arange(N) % 3].astype(object)
    x = rng.standard_normal((N, 2, D)).astype(np.float32)
    for c, name in enumerate(("knife", "apple", "rope")):
        x[names == name, 1, c] += 4
    names[0], names[1] = None, "lonely"
    groups = np.arange(N) // 3
    probe = ConceptProbe(**SMALL).fit(x, names, groups)
    curve = probe.curve_.with_baseline("text_only", probe.baseline(rng.standard_normal((N, 3)), names, groups))
    assert curve.meta["dropped"] == 2 and curve.n == N - 2 and curve.meta["classes"] == 3
    assert curve.value[1] > 0.9 and curve.value[0] < 0.45 and curve.baselines["text_only"].value < 0.5
    fitted = ConceptProbe(**SMALL).fit(x, names, groups)
    assert (fitted.predict(x)[2:, 1] == names[2:].astype(str)).mean() > 0.9
    with pytest.raises(DataError, match="never crosses groups"):
        ConceptProbe().fit(x, np.arange(N).astype(str), groups)


def test_ships_is_the_kl_of_torch():
    generator = torch.Generator().manual_seed(0)
    base, other = torch.randn(7, 30, generator=generator), torch.randn(2, 3, 7, 30, generator=generator)
    ours = ships_kl(base, other)
    theirs = torch.nn.functional.kl_div(
        torch.log_softmax(other[1, 2], -1), torch.log_softmax(base, -1), log_target=True, reduction="none"
    ).sum(-1)
    assert ours.shape == (2, 3, 7)
    np.testing.assert_allclose(ours[1, 2], theirs.numpy(), rtol=1e-5)
    with pytest.raises(UsageError, match="do not match"):
        ships_kl(base, other[..., :5])


def test_left_vectors_are_blind_on_data_with_a_common_mean_and_centred_ones_see():
    """The head writes the leading direction of variation; without it another leads."""
    rng = np.random.default_rng(0)
    base = 50 + rng.standard_normal((80, 20))
    written = np.outer(6 * rng.standard_normal(80), np.eye(20)[4])
    other = np.outer(4 * rng.standard_normal(80), np.eye(20)[9])
    full, without = base + written + other, base + other
    angle = {v: singular_vector_score(full, without, v) for v in ("left", "right", "centred")}
    assert angle["left"] < 0.1 and angle["right"] < 0.1 and angle["centred"] > 1.3
    assert singular_vector_score(full, full, "rank", 3) == pytest.approx(0, abs=1e-6)
    assert singular_vector_score(full, without, "rank", 1) == pytest.approx(angle["centred"])
    with pytest.raises(UsageError, match="variant"):
        singular_vector_score(full, without, "middle")


def test_safety_specific_heads_leave_the_useful_ones():
    safety, utility = np.array([[5.0, 1.0], [4.0, 3.0]]), np.array([[9.0, 0.0], [1.0, 0.5]])
    assert safety_specific_heads(safety, utility, 1) == []
    assert safety_specific_heads(safety, np.array([[0.0, 1.0], [0.5, 9.0]]), 2) == [(0, 0), (1, 0)]
