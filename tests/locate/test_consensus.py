from __future__ import annotations

import json

import numpy as np
import pytest

from lvlm_lens.errors import DataError, UsageError
from lvlm_lens.locate.consensus import change_point, consensus_role, votes_text
from lvlm_lens.locate.robustness import robustness_table, sample_and_seed, summary
from lvlm_lens.measures.mean_difference import MeanDifference
from lvlm_lens.plots.consensus import plot_consensus_atlas
from lvlm_lens.stats.curve import Curve, curve_from_draws


def curve(shape: np.ndarray, seed: int = 0, noise: float = 0.02) -> Curve:
    rng = np.random.default_rng(seed)
    value = shape + noise * rng.standard_normal(len(shape))
    return curve_from_draws(
        "m", range(len(shape)), value, value + noise * rng.standard_normal((300, len(shape))),
        0.5 + noise * rng.standard_normal((40, len(shape))), n=100, unit="AUROC",
    )  # fmt: skip


def ramp(s: int, e: int, blocks: int = 12, high: float = 0.95) -> np.ndarray:
    return 0.5 + (high - 0.5) * np.clip((np.arange(blocks) - s + 1) / (e - s + 1), 0, 1)


@pytest.mark.parametrize(("s", "e"), [(4, 4), (3, 7), (1, 10), (6, 9)])
def test_change_point_finds_the_ramp(s, e):
    exact = change_point(curve(ramp(s, e), noise=1e-6))
    assert (exact.start, exact.end) == (s, e) and exact.explained > 0.999
    hits = [change_point(curve(ramp(s, e), seed)) for seed in range(20)]
    assert np.mean([c.start_low <= s <= c.start_high and c.end_low <= e <= c.end_high for c in hits]) >= 0.85


def test_change_point_ignores_a_late_fall():
    shape = ramp(3, 5)
    shape[9:] = 0.5
    found = change_point(curve(shape))
    assert found.start_low <= 3 <= found.start_high and found.end <= 6


def test_consensus_is_the_median_and_shows_disagreement():
    curves = {"a": curve(ramp(3, 3), 1), "b": curve(ramp(4, 4), 2), "c": curve(ramp(8, 8), 3)}
    role = consensus_role("perception", curves)
    assert role.found and role.onset == 4 and role.spread == (3, 8) and role.agreement == pytest.approx(1 / 3)
    assert (role.start, role.end) == (4, 4) and "span 3-8" in str(role)
    without = consensus_role("perception", curves, excluded=("c",))
    assert without.spread == (3, 4) and "c" in without.members and without.excluded == ("c",)
    json.dumps(role.to_dict(), allow_nan=False)


def test_consensus_needs_more_than_half():
    flat = np.full(12, 0.5)
    curves = {"a": curve(ramp(3, 3), 1), "b": curve(flat, 2)}
    role = consensus_role("perception", curves)
    assert not role.found and "1 of 2" in role.reason and "b (" in role.reason
    assert consensus_role("perception", curves | {"c": curve(ramp(3, 4), 3)}).found
    with pytest.raises(UsageError, match="same blocks"):
        consensus_role("perception", {"a": curve(flat), "b": curve(flat[:5])})
    with pytest.raises(DataError, match="at least 3 blocks"):
        change_point(curve(flat[:2]))


def test_a_role_without_a_counted_measure_is_not_called_not_found():
    curves = {"a": curve(ramp(4, 6))}
    found = consensus_role("semantics", curves, excluded=("a",))
    figure = plot_consensus_atlas({"semantics": curves}, {"semantics": found}, 12)
    title = figure.axes[0].get_title(loc="left")
    assert "no consensus" in str(found) and "no consensus" in title
    assert "not found" not in str(found) + title


def test_robustness_measures_again_and_keeps_failures_as_rows():
    rng = np.random.default_rng(0)
    harmful, pairs = np.arange(200) % 2, np.arange(200) // 2
    acts = rng.standard_normal((200, 6, 8))
    acts[:, 3:, 0] += 2 * harmful[:, None]

    def measure(activations, labels, groups, seed):
        return (
            MeanDifference(replicates=100, permutations=20, random_state=seed).fit(activations, labels, groups).curve_
        )

    variants = sample_and_seed(measure, acts, harmful, pairs)
    shifted = np.concatenate([acts[:, 1:], acts[:, -1:]], 1)
    variants["position"] = {
        "one block earlier": lambda: measure(shifted, harmful, pairs, 0),
        "broken": lambda: measure(acts * np.nan, harmful, pairs, 0),
    }
    table = robustness_table("perception", measure(acts, harmful, pairs, 0), variants)
    assert len(table) == 1 + 4 + 2 + 2 and table.iloc[0]["factor"] == "reference"
    by = summary(table).set_index("factor")
    assert by.loc["sample", "same_verdict"] == 1 and by.loc["seed", "largest_shift"] <= 1
    position = table[table["factor"] == "position"].set_index("setting")
    assert position.loc["one block earlier", "shift"] == -1
    assert not position.loc["broken", "found"] and "NaN" in position.loc["broken", "reason"]
    assert by.loc["position", "same_verdict"] == 0.5


def test_one_counted_measure_is_no_consensus():
    curves = {"a": curve(ramp(3, 4), 1), "b": curve(ramp(3, 4), 2)}
    assert consensus_role("perception", curves).found
    alone = consensus_role("perception", curves, excluded=("b",))
    assert not alone.found and alone.members["a"].found and "one measure alone is left with a vote, a" in alone.reason
    assert alone.reason in votes_text(alone.to_dict())
