from __future__ import annotations

import json

import numpy as np
import pytest

from lvlm_lens.errors import DataError, UsageError
from lvlm_lens.locate.roles import LayerRoles, find_role, onsets, order_test
from lvlm_lens.measures.linear_probe import LinearProbe
from lvlm_lens.stats.auroc import weighted_auroc
from lvlm_lens.stats.curve import Curve, curve_from_draws
from lvlm_lens.stats.onset import rises
from lvlm_lens.stats.resampling import Resampling, permute_labels
from lvlm_lens.stats.strength import measure_strength


def scored_curve(name: str, shape: np.ndarray, seed: int, n: int = 160, persistence: float = 0.8) -> Curve:
    """A curve of scores ``strength * label + noise``, noise that persists from block to block."""
    rng = np.random.default_rng(seed)
    labels, pairs = np.arange(n) % 2, np.arange(n) // 2
    noise = rng.standard_normal((n, len(shape)))
    for at in range(1, len(shape)):
        noise[:, at] = persistence * noise[:, at - 1] + np.sqrt(1 - persistence**2) * noise[:, at]
    scores = noise + shape * labels[:, None]
    value = weighted_auroc(scores, labels)[0]
    replicates = weighted_auroc(scores, labels, Resampling(pairs, 200, 0).weights())
    null = np.stack([weighted_auroc(scores, y)[0] for y in permute_labels(labels, pairs, 30, 1)])
    return curve_from_draws(name, range(len(shape)), value, replicates, null, unit="AUROC", n=n)


def step(at: int, strength: float = 1.5, blocks: int = 12) -> np.ndarray:
    return strength * (np.arange(blocks) >= at)


def ramp(start: int, length: int, strength: float = 2.0, blocks: int = 12) -> np.ndarray:
    return strength * np.clip((np.arange(blocks) - start + 1) / length, 0, 1)


def test_onset_is_the_half_height_crossing_that_stays():
    values = np.array([0.0, 0.6, 0.1, 0.3, 0.9, 1.0, 0.4])
    found = onsets(values)
    assert found["onset"][0] == 4  # block 1 exceeds half and does not stay
    assert found["onset_at"][0] == pytest.approx(3 + 0.2 / 0.6)
    assert found["peak"][0] == 5 and found["full"][0] == 4
    assert onsets(np.ones(3))["onset_at"][0] == 0
    assert np.isnan(onsets(-np.ones(3))["onset"][0])
    shifted = onsets(values + 0.5, floor=0.5)
    assert all(shifted[key][0] == pytest.approx(found[key][0]) for key in found)


def test_role_of_a_sharp_step():
    role = find_role("perception", scored_curve("perception", step(4), 0))
    assert role.found and role.onset == 4 and (role.onset_low, role.onset_high) == (4, 4)
    assert role.range == (4, 4) and role.plateau[0] == 4
    assert role.missing == ("text_only", "image_only", "nuisance", "input_embedding", "random_twin")
    assert "not compared with the text-only baseline" in str(role) and role.short == "perception 4"


def test_block_numbers_are_those_of_the_curve():
    curve = scored_curve("perception", step(2, blocks=5), 0)
    renumbered = Curve.from_dict(curve.to_dict(draws=True) | {"blocks": [0, 4, 8, 12, 16]})
    role = find_role("perception", renumbered)
    assert role.onset == 8 and 4 < role.onset_at <= 8 and role.range == (8, 8)


@pytest.mark.parametrize("name", ["text_only", "image_only", "input_embedding", "random_twin"])
def test_a_baseline_as_good_as_the_curve_forbids_the_role(name):
    curve = scored_curve("semantics", step(4), 0)
    assert find_role("semantics", curve.with_baseline(name, 0.6, 0.55, 0.65)).found
    beaten = find_role("semantics", curve.with_baseline(name, 0.82, 0.78, 0.86))
    assert not beaten.found and "not above" in beaten.reason and "0.86" in beaten.reason
    assert beaten.onset is None and "not found" in str(beaten)


def test_small_numbers_are_told_by_their_first_digits():
    """A cosine difference of 0.003 against 0.004 is no riddle of 0.00 against 0.00."""
    draw = np.random.default_rng(0).standard_normal((200, 5)) / 1e4
    curve = curve_from_draws("gap", range(5), np.full(5, 0.003), 0.003 + draw, 0.004 + draw[:30], unit="nats", n=40)
    reason = find_role("perception", curve).reason
    assert "has 0.0030 [0.00" in reason and "not above shuffled labels" in reason and "at 0.004" in reason


def test_a_twin_counts_by_its_best_block():
    curve = scored_curve("perception", step(4), 0)
    twin = scored_curve("twin", step(10), 1)  # as good as the curve, in two blocks only
    assert not find_role("perception", curve.with_baseline("random_twin", twin)).found


def test_missing_null_or_replicates_is_not_found():
    curve = scored_curve("perception", step(4), 0)
    bare = Curve.from_dict(curve.to_dict())
    assert "no bootstrap replicates" in find_role("perception", bare).reason
    data = curve.to_dict(draws=True) | {"null": None, "null_mean": None, "null_draws": None}
    role = find_role("perception", Curve.from_dict(data))
    assert not role.found and "no shuffled-label null" in role.reason and "null" in role.missing


def test_floor_of_baselines_moves_the_onset_to_where_the_curve_leaves_them():
    """A cue of the text alone lifts every block to 0.86; what is fused appears at block 6."""
    shape = np.where(np.arange(12) >= 6, 3.5, 1.5)
    curve = scored_curve("semantics", shape, 0, n=400)
    assert find_role("semantics", curve).onset == 0
    assert find_role("semantics", curve.with_baseline("text_only", 0.86, 0.8, 0.92)).onset == 6


def test_layer_roles_print_and_survive_json():
    curves = [scored_curve(n, step(b), b) for n, b in (("perception", 3), ("semantics", 6), ("expression", 9))]
    notes = {"expression": ("3 items never show the answer",)}
    roles = LayerRoles(*(find_role(curve.name, curve, notes=notes.get(curve.name, ())) for curve in curves))
    assert repr(roles) == "perception 3, semantics 6, expression 9"
    back = LayerRoles.from_dict(json.loads(json.dumps(roles.to_dict(), allow_nan=False)))
    assert back == roles and back["expression"].notes == ("3 items never show the answer",)
    with pytest.raises(UsageError, match="no role 'safety'"):
        roles["safety"]
    with pytest.raises(DataError, match="expression missing"):
        LayerRoles.from_dict({"perception": {}, "semantics": {}})


def test_false_alarms_on_noise_are_rare():
    """Best of 12 blocks, 100 experiments without any signal."""
    found = sum(find_role("perception", scored_curve("noise", 0 * step(0), seed, 100)).found for seed in range(100))
    assert found <= 5


def test_probes_on_noise_and_on_shuffled_labels_find_nothing():
    probe = LinearProbe(folds=4, permutations=20, replicates=100)
    found = 0
    for seed in range(16):
        rng = np.random.default_rng(seed)
        pairs, labels = np.arange(80) // 2, np.arange(80) % 2
        acts = rng.standard_normal((80, 5, 10)).astype(np.float32)
        if seed % 2:  # strong signal, labels shuffled within the pairs
            acts[:, 2:, 0] += 3 * labels[:, None]
            labels = permute_labels(labels, pairs, 1, seed)[0]
        found += find_role("perception", probe.fit(acts, labels, pairs).curve_).found
    assert found <= 1


@pytest.mark.parametrize("shape", [step(5), ramp(4, 4)])
def test_onset_intervals_cover_the_onset_of_the_expected_curve(shape):
    truth = onsets(scored_curve("truth", shape, 999, n=4_000).value - 0.5)["onset"][0]
    roles = [find_role("perception", scored_curve("perception", shape, seed)) for seed in range(40)]
    assert all(role.found for role in roles)
    assert np.mean([role.onset_low <= truth <= role.onset_high for role in roles]) >= 0.9
    assert np.mean([abs(role.onset - truth) for role in roles]) <= 1


def two_rises(first: np.ndarray, second: np.ndarray, seed: int, n: int = 160) -> list[Curve]:
    """Two signals of one sample each, read in one call; the noise persists from block to block."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((len(first), 2 * n, 8))
    for at in range(1, len(first)):
        rows[at] = 0.8 * rows[at - 1] + 0.6 * rows[at]
    signs = np.zeros((2, 2 * n))
    signs[0, :n] = signs[1, n:] = np.arange(n) % 2 * 2 - 1
    for role, shape in enumerate((first, second)):
        rows[:, :, role] += signs[role] * shape[:, None] / 2
    kinds = np.repeat([0, 1], n)
    strength = measure_strength(rows, signs, np.arange(2 * n), np.arange(2 * n) // 2 % 5, kinds, seed)
    found = rises(strength, 200, seed)
    blocks = range(len(first))
    return [Curve(name, blocks, s, s, s, rise=r) for name, s, r in zip("ab", (first, second), found, strict=True)]


@pytest.mark.parametrize(
    ("first", "second"),
    [(step(5), step(5)), (step(5, 6), step(5, 1.5)), (ramp(3, 6, 6), ramp(3, 6, 1.5)), (ramp(3, 5, 4), step(5, 4))],
)
def test_order_test_is_blind_to_strength(first, second):
    """Equal half-height blocks of strengths 1 to 4, and a slow and a fast rise that cross."""
    claimed = [order_test(*two_rises(first, second, seed))["earlier"] is not None for seed in range(20)]
    assert sum(claimed) <= 2


@pytest.mark.parametrize("strengths", [(2.5, 2.5), (6, 2), (2, 6)])
def test_order_test_finds_three_blocks_whatever_the_strengths(strengths):
    tests = [order_test(*two_rises(ramp(2, 3, strengths[0]), ramp(5, 3, strengths[1]), seed)) for seed in range(12)]
    assert sum(t["earlier"] == "a" for t in tests) >= 11
    assert np.median([t["difference"] for t in tests]) == pytest.approx(3, abs=0.4)
    assert tests[0]["conclusion"] == "a begins in an earlier block than b"


def test_order_test_says_what_it_cannot_tell():
    late, early = two_rises(step(8, 3), step(3, 3), 0)
    assert order_test(late, early)["conclusion"] == "b begins in an earlier block than a"
    weak = order_test(*two_rises(step(5, 8), step(5, 0.8), 1, n=60))
    assert not weak["told"] and "cannot be told, because a is" in weak["conclusion"]
    with pytest.raises(UsageError, match="needs onsets of both"):
        order_test(early, scored_curve("c", step(3), 0))
