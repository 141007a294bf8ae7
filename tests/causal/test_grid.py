"""patch_grid and what stands around it: axes, baselines, null, statistics, folder, kill and resume."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from prompts import make_pairs, picture, tiny, token_difference

from lvlm_lens import LVLM
from lvlm_lens.activations.sites import Site, tap
from lvlm_lens.causal import PatchGrid, patch_grid
from lvlm_lens.causal.cells import _random_change, image_rows, position_groups
from lvlm_lens.causal.metrics import AnswerLogitDiff, KLFromClean, make_metric
from lvlm_lens.data import Pair, Sample
from lvlm_lens.errors import DataError, NumericalError, RunFolderError, SiteError, UsageError
from lvlm_lens.models import Layout
from lvlm_lens.models.tiny import tiny_model
from lvlm_lens.stats.groups import bootstrap_mean, sign_flip_p


def test_resumed_grid_equals_full_grid() -> None:
    arguments = (tiny(), make_pairs(3), ["resid_post", "z", "image_features"], "image | question[-2:] | last")
    fast = patch_grid(*arguments, token_difference, per="span", window=2, heads="each")
    plain = patch_grid(*arguments, token_difference, per="span", window=2, heads="each", exact="full")
    assert (fast.engine, plain.engine, plain.reason) == ("resumed", "full", "asked for")
    assert fast.values.shape == (2, 1 + 4 + 1, 4, 3, 3) and fast.sites[1] == "z.h0"
    assert fast.null is not None and plain.null is not None
    assert np.array_equal(np.isnan(fast.values), np.isnan(plain.values))
    assert np.nanmax(np.abs(fast.values - plain.values)) < 1e-5
    assert np.nanmax(np.abs(fast.null - plain.null)) < 1e-5
    assert fast.verification["told_from_noise"] >= 4 and 0 <= fast.verification["max_abs_diff"] < 1e-5
    # the last token of the last block carries everything that the metric sees
    effects = fast.normalized(min_gap=0.0).values
    assert np.allclose(effects[:, 0, -1, -1], 1.0, atol=1e-4)
    assert np.isnan(fast.values[:, 5, 1:]).all() and np.isnan(fast.values[:, 5, 0, 1:]).all()


def test_image_features_equal_the_projectors_own_output() -> None:
    model, pair = tiny(), make_pairs(1)[0]
    grid = patch_grid(model, [pair], "image_features", "image", token_difference, "denoise", "span", null=0)
    projector = tap(Site("image_features"), model.anatomy).module
    kept: list[torch.Tensor] = []
    handle = projector.register_forward_hook(lambda m, a, out: kept.append(out))
    model.logits(model.encode(pair.clean))
    handle.remove()
    handle = projector.register_forward_hook(lambda m, a, out: kept[0])
    expected = token_difference(model.logits(model.encode(pair.corrupted)))
    handle.remove()
    assert np.isclose(grid.values[0, 0, 0, 0, 0], float(expected[0]), atol=1e-5)


def test_padded_batches_and_words_and_lengths() -> None:
    """Pairs of different length in one batch give the same numbers as alone; unequal spans are refused."""
    pairs = make_pairs(3)
    together = patch_grid(tiny(), pairs, "resid_post", "question[-2:] | last", token_difference, null=0)
    for number, pair in enumerate(pairs):
        alone = patch_grid(tiny(), [pair], "resid_post", "question[-2:] | last", token_difference, null=0)
        assert np.allclose(together.values[..., number], alone.values[..., 0], atol=1e-5)
    assert together.positions == ("question[-2]", "question[-1]", "last")
    unequal = Pair(pairs[0].clean, pairs[1].corrupted, "text")
    with pytest.raises(DataError, match="question"):
        patch_grid(tiny(), [unequal], "resid_post", "question", token_difference, per="span")
    with pytest.raises(DataError, match="equal length"):
        patch_grid(tiny(), [unequal], "pattern", "last", token_difference)
    assert patch_grid(tiny(), [unequal], "resid_post", "last", token_difference, null=0).values.shape[-1] == 1


def test_a_form_pair_of_words_and_picture_can_be_patched() -> None:
    clean = Sample("words", "hello there")
    pair = Pair(clean, Sample("shown", "hello there", (picture(1),)), "text")
    grid = patch_grid(tiny(), [pair], "resid_post", "last", token_difference, null=0)
    assert np.allclose(grid.normalized(0.0).values[:, 0, -1, 0], 1.0, atol=1e-4)


def test_pairs_with_and_without_pictures_share_a_grid() -> None:
    words = Pair(Sample("w", "hello there", group="w"), Sample("w'", "hello where", group="w"), "text")
    pairs = [make_pairs(1)[0], words, make_pairs(2)[1]]
    together = patch_grid(tiny(), pairs, "resid_post", "last", token_difference, null=0)
    for number, pair in enumerate(pairs):
        alone = patch_grid(tiny(), [pair], "resid_post", "last", token_difference, null=0)
        assert np.allclose(together.values[..., number], alone.values[..., 0], atol=1e-5)


def test_wrong_resuming_is_caught_and_run_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """If resumed cells were wrong, verification would see it, say so, and the numbers would still be right."""
    from lvlm_lens.causal import patch_grid as room
    from lvlm_lens.interventions import engine

    arguments = (tiny(), make_pairs(2), "resid_post", "image | last", token_difference)
    right = patch_grid(*arguments, per="span", null=0)
    original = engine._wave
    monkeypatch.setattr(engine, "_wave", lambda *a: original(*a).flip(-1))
    del room
    caught = patch_grid(*arguments, per="span", null=0)
    assert caught.engine == "full" and "differed" in caught.reason
    assert np.allclose(caught.values, right.values, atol=1e-5)


def test_families_that_cannot_be_resumed_run_in_full_and_say_so() -> None:
    model = LVLM(*tiny_model("lfm2_vl"))
    grid = patch_grid(model, make_pairs(2), "resid_post", "last", token_difference, null=0, verify=2)
    assert grid.engine == "full" and "recurrent" in grid.reason
    one_by_one = patch_grid(model, make_pairs(2), "resid_post", "last", token_difference, null=0, batch_size=1)
    assert one_by_one.reason == grid.reason  # later batches follow the first, and for its reason
    assert np.allclose(grid.normalized(0.0).values[:, 0, -1, 0], 1.0, atol=1e-4)


def test_null_of_a_pair_does_not_depend_on_its_batch() -> None:
    """Each pair draws its own random directions: one batch, three, or a run that was taken up again are the same."""
    arguments = (tiny(), make_pairs(3), "resid_post", "last", token_difference, "denoise")
    together, alone = (patch_grid(*arguments, verify=0, batch_size=size, nulls=["random"]) for size in (3, 1))
    assert together.null is not None and alone.null is not None
    assert np.allclose(together.null, alone.null, atol=1e-5)


def test_out_of_memory_shrinks_waves_and_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from lvlm_lens.interventions import engine

    arguments = (tiny(), make_pairs(3), "resid_post", "question[-2:] | last", token_difference)
    right = patch_grid(*arguments, null=0, verify=0)
    original = engine._wave
    sizes: list[int] = []

    def small_memory(model, rec, cells, starts):
        sizes.append(len(cells))
        if len(cells) > 2:
            raise torch.OutOfMemoryError("a test's own limit")
        return original(model, rec, cells, starts)

    monkeypatch.setattr(engine, "_wave", small_memory)
    shrunk = patch_grid(*arguments, null=0, verify=0)
    assert max(sizes) > 2 and np.allclose(shrunk.values, right.values, atol=1e-5)
    monkeypatch.setattr(engine, "_wave", lambda *a: (_ for _ in ()).throw(torch.OutOfMemoryError("never enough")))
    with pytest.raises(NumericalError, match="one cell"):
        patch_grid(*arguments, null=0, verify=0)


def test_requests_that_make_no_sense_are_refused() -> None:
    with pytest.raises(DataError, match="no pairs"):
        patch_grid(tiny(), [])
    with pytest.raises(SiteError, match="resid_post"):
        patch_grid(tiny(), make_pairs(1), "resid_pots")
    with pytest.raises(UsageError, match="denoise"):
        patch_grid(tiny(), make_pairs(1), direction="up")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="refusal_log_odds"):
        patch_grid(tiny(), make_pairs(1), metric="refusal_logodds")
    with pytest.raises(UsageError, match="one number a row"):
        patch_grid(tiny(), make_pairs(1), metric=lambda logits: logits)


# -- folder ----------------------------------------------------------------------------------------


def test_save_and_load(tmp_path: Path) -> None:
    grid = patch_grid(tiny(), make_pairs(3), "resid_post", "question[-2:] | last", "kl")
    back = PatchGrid.load(grid.save(tmp_path / "grid"))
    assert np.array_equal(back.values, grid.values) and np.array_equal(back.null, grid.null)
    assert (back.positions, back.pairs, back.metric, back.engine) == (
        grid.positions, grid.pairs, "kl", "resumed")  # fmt: skip
    frame = back.to_dataframe()
    assert len(frame) == grid.values.size and set(frame["direction"]) == {"denoise", "noise"}
    row = frame[(frame["direction"] == "noise") & (frame["block"] == 3) & (frame["position"] == "last")].iloc[0]
    assert np.isclose(row["effect"], 1.0, atol=1e-4)
    with pytest.raises(RunFolderError):
        PatchGrid.load(tmp_path / "nothing")


def test_killed_run_continues_where_it_was(tmp_path: Path) -> None:
    """SIGKILL after the second of three batches; the same command does the third only; numbers as in one go."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parents[1]), str(here.parent / "support")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(here / "causal_killing.py"), str(tmp_path / "run")]
    killed = subprocess.run([*command, "4"], env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    parts = sorted(path.name for path in (tmp_path / "run").glob("part-*"))
    assert len(parts) == 2
    with pytest.raises(RunFolderError, match="not finished"):
        PatchGrid.load(tmp_path / "run")
    (tmp_path / "run" / ".part-000099.tmp").write_bytes(b"half a part")  # what a kill inside a write leaves
    steps: list[tuple[int, int]] = []
    arguments = (tiny(), make_pairs(6), "resid_post", "question[-2:] | last", token_difference)
    continued = patch_grid(
        *arguments, batch_size=2, out=tmp_path / "run", progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(6, 6)]
    once = patch_grid(*arguments, batch_size=2)
    assert np.allclose(continued.values, once.values, atol=1e-6) and np.allclose(continued.null, once.null, atol=1e-6)
    again = patch_grid(*arguments, batch_size=2, out=tmp_path / "run", progress=lambda *a: pytest.fail("ran again"))
    assert np.array_equal(again.values, continued.values) and again.engine == "resumed"
    with pytest.raises(RunFolderError, match="window"):
        patch_grid(*arguments, batch_size=2, window=2, out=tmp_path / "run")


# -- numbers ---------------------------------------------------------------------------------------


def grid_of(values: np.ndarray, clean: np.ndarray, corrupted: np.ndarray, null: np.ndarray | None) -> PatchGrid:
    d, s, b, p, n = values.shape
    return PatchGrid(
        values, clean, corrupted, null, ("denoise", "noise")[:d], tuple(f"s{i}" for i in range(s)), tuple(range(b)),
        tuple(f"p{i}" for i in range(p)), tuple((f"c{i}", f"r{i}") for i in range(n)),
        tuple(f"g{i}" for i in range(n)), 1, "m", "resumed", "", {},
    )  # fmt: skip


def test_normalized_effects_by_hand() -> None:
    clean, corrupted = np.array([4.0, 2.0, 1.0]), np.array([0.0, -2.0, 0.999999])
    values = np.array([1.0, 2.0, 0.0])[None, None, None, None, :].repeat(2, 0)
    normal = grid_of(values, clean, corrupted, None).normalized()
    assert normal.dropped == (2,)
    assert np.allclose(normal.values[0, 0, 0, 0, :2], [0.25, 1.0])
    assert np.allclose(normal.values[1, 0, 0, 0, :2], [0.75, 0.0])  # toward the corrupted prompt
    assert np.isnan(normal.values[..., 2]).all()


def test_a_planted_effect_survives_and_noise_does_not() -> None:
    rng = np.random.default_rng(0)
    shape = (1, 1, 10, 4, 24)
    values, null = 0.2 * rng.normal(size=shape), 0.2 * rng.normal(size=(1, *shape))
    values[0, 0, 6, 2] += 0.6
    grid = grid_of(values, np.ones(24), np.zeros(24), null)
    survives = grid.survives()
    assert survives[0, 0, 6, 2] and survives.sum() == 1
    row = grid.summary().set_index(["block", "position"]).loc[(6, "p2")]
    assert row["low"] < 0.6 < row["high"] and row["p_adjusted"] <= 0.05 and row["beaten"] == "random"


def test_a_large_random_change_is_not_beaten_though_its_mean_is_zero() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.3, 0.05, (1, 1, 3, 1, 30))
    null = 1.0 * rng.choice([-1, 1], (1, *values.shape))  # three times the effect, either way
    grid = grid_of(values, np.ones(30), np.zeros(30), null)
    table = grid.summary()
    assert (table["p_zero"] <= 0.05).all() and not table["survives"].any() and (table["beaten"] == "").all()
    assert np.allclose(table["magnitude"], table["effect"]) and np.allclose(table["null_random"], 1.0)
    null[:, 0, 0, 1] *= 0.1
    both = replace(grid, null=np.concatenate([null, 5 * null]), nulls=("random", "same_label")).summary()
    assert both["beaten"].tolist() == ["", "random", ""] and not both["survives"].any()


def test_effects_are_ratios_of_sums_and_in_the_metrics_units_where_there_is_no_gap() -> None:
    rng = np.random.default_rng(0)
    gaps = np.r_[np.full(19, 2.0), 1e-7]  # one pair whose own share would be huge
    values = np.r_[np.full(19, 1.0), 1.0][None, None, None, None].repeat(2, 0)
    table = grid_of(values, gaps, np.zeros(20), None).summary()
    assert table["unit"].eq("share of the gap").all()
    assert table["effect"].tolist() == pytest.approx([20 / gaps.sum(), 1 - 20 / gaps.sum()])
    gaps = rng.permutation(np.repeat([1.0, -1.0], 10))
    table = grid_of(values[:1], gaps, np.zeros(20), None).summary()
    assert table["unit"].eq("m").all() and table["effect"][0] == 1.0


def test_a_donor_of_the_same_label_is_another_recipient() -> None:
    grid = patch_grid(tiny(), make_pairs(3), "resid_post", "last", token_difference, nulls=["same_label"])
    assert grid.null is not None and grid.nulls == ("same_label",)
    for direction, own in enumerate((grid.corrupted, grid.clean)):
        last = grid.null[0, direction, 0, -1, 0]  # at the last block the donor's own answer comes out
        for pair, value in enumerate(last):
            others = np.delete(own, pair)
            assert np.abs(others - value).min() < 1e-4 < np.abs(own[pair] - value)
    together = replace(make_pairs(2)[1], clean=replace(make_pairs(2)[1].clean, group="g0"))
    alone = patch_grid(tiny(), [make_pairs(1)[0], together], "resid_post", "last", token_difference)
    assert alone.null is not None and alone.nulls == ("random", "covariance", "same_label")
    assert np.isnan(alone.null[2]).all() and np.isfinite(alone.null[:2]).all()  # one group: nobody to take it from


def test_covariance_noise_stays_among_the_states_and_is_as_long_as_the_change() -> None:
    torch.manual_seed(0)
    plane = torch.randn(2, 9)
    states = [partial(torch.Tensor.clone, torch.randn(1, 2) @ plane) for _ in range(6)]
    new, old = torch.randn(3, 9), torch.randn(3, 9)
    changed = _random_change(partial(torch.Tensor.clone, new), partial(torch.Tensor.clone, old), states, 0) - old
    assert torch.allclose(changed.norm(dim=1), (new - old).norm(dim=1), atol=1e-5)
    rest = changed - changed @ torch.linalg.pinv(plane) @ plane
    assert rest.abs().max() < 1e-4
    free = _random_change(partial(torch.Tensor.clone, new), partial(torch.Tensor.clone, old), [], 0) - old
    assert (free - free @ torch.linalg.pinv(plane) @ plane).abs().max() > 0.1


def test_statistics_against_scipy() -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    effects = rng.normal(0.4, 1.0, (3, 20))
    effects[1] -= 0.4
    groups = [str(i) for i in range(20)]
    p = sign_flip_p(effects, groups, draws=20000)
    for own, row in zip(p, effects, strict=True):
        exact = stats.permutation_test((row, -row), lambda x, y, axis: x.mean(axis), permutation_type="samples",
                                       n_resamples=20000, vectorized=True, random_state=0).pvalue  # fmt: skip
        assert abs(own - exact) < 0.02
    low, high = bootstrap_mean(effects, groups, replicates=4000)
    spread = effects.std(1) / np.sqrt(20)
    assert np.allclose(high - low, 2 * 1.96 * spread, rtol=0.15)
    # samples of one group are one: the interval of doubled rows in shared groups does not shrink
    low2, high2 = bootstrap_mean(np.repeat(effects, 2, 1), np.repeat(groups, 2).tolist(), replicates=4000)
    assert np.allclose(high2 - low2, high - low, rtol=0.15)


def test_metrics() -> None:
    model = tiny()
    clean, corrupted = torch.randn(3, 20), torch.randn(3, 20)
    difference = AnswerLogitDiff()
    difference.prepare(clean, corrupted)
    own = difference(clean, [0, 1, 2])
    assert torch.allclose(own, clean.max(-1).values - clean[range(3), corrupted.argmax(-1)])
    kl = KLFromClean()
    kl.prepare(clean, corrupted)
    expected = torch.nn.functional.kl_div(
        corrupted.log_softmax(-1), clean.log_softmax(-1), log_target=True, reduction="none"
    )
    assert torch.allclose(kl(corrupted, [0, 1, 2]), expected.sum(-1), atol=1e-5)
    assert torch.allclose(kl(clean[[2]], [2]), torch.zeros(1), atol=1e-6)
    probability = make_metric("answer_probability", model)
    probability.prepare(clean, corrupted)
    assert torch.allclose(probability(clean, [0, 1, 2]), clean.softmax(-1).max(-1).values)


def test_position_groups() -> None:
    layouts = [
        Layout(16, range(16), [range(1, 10)], range(10, 14)),
        Layout(16, range(1, 16), [range(2, 11)], range(11, 14)),
    ]
    names = [g.name for g in position_groups("image | question[-4:] | last", "span", layouts)]
    assert names == ["image", "question[-4:]", "last"]
    single = position_groups("question[-4:] | last", "position", layouts)
    assert [g.name for g in single] == ["question[-4]", "question[-3]", "question[-2]", "question[-1]", "last"]
    assert [g.columns(layouts[1]) for g in single] == [(), (11,), (12,), (13,), (15,)]
    assert position_groups("image", "position", layouts)[3].name == "image[0][3]"
    rows = image_rows(layouts)
    assert [r.columns(layouts[0]) for r in rows] == [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    named = position_groups({"all of it": "image | question"}, "span", layouts)
    assert named[0].name == "all of it" and len(named[0].columns(layouts[0])) == 13
    assert [g.name for g in position_groups("image_rows | last", "position", layouts)][-1] == "last"
    assert len(position_groups("template | last", "position", layouts)) == 3  # the last token is named once
