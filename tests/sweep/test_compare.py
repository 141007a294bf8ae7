"""Comparing runs: known differences are found, equal runs are not told apart, and what wrong input gets."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lvlm_lens.cli import main
from lvlm_lens.comparison import _apart, compare_runs, write_comparison
from lvlm_lens.errors import RunFolderError, UsageError
from lvlm_lens.locate.roles import LayerRoles, find_role
from lvlm_lens.measures.draws import save_curves
from lvlm_lens.stats.auroc import weighted_auroc
from lvlm_lens.stats.curve import Curve, curve_from_draws
from lvlm_lens.stats.resampling import Resampling, permute_labels
from lvlm_lens.sweep import SCHEMA

N = 240


def step_curve(name: str, blocks: int, at: int, height: float, seed: int) -> Curve:
    """AUROC by block of scores that carry the labels from block ``at`` on; interval over groups, shuffled null."""
    rng = np.random.default_rng(seed)
    labels, groups = np.arange(N) % 2, np.arange(N) // 2
    scores = rng.standard_normal((N, blocks))
    scores[:, at:] += height * labels[:, None]
    weights = Resampling(groups, 400, 0).weights()
    null = np.stack([weighted_auroc(scores, row)[0] for row in permute_labels(labels, groups, 40, 1)])
    curve = curve_from_draws(
        name, range(blocks), weighted_auroc(scores, labels)[0], weighted_auroc(scores, labels, weights), null,
        unit="AUROC", n=N, meta={"depth": blocks},
    )  # fmt: skip
    return curve.with_baseline("text_only", 0.5)


def write_run(root, name: str, blocks: int, at: tuple[int, int, int], seed: int = 0, data: str = "same", height=2.0):
    """A finished run folder, as the sweep writes it, with roles read from real curves."""
    folder = root / name
    roles = ("perception", "semantics", "expression")
    curves = {
        role: step_curve(role, blocks, where, height, seed + number)
        for number, (role, where) in enumerate(zip(roles, at, strict=True))
    }
    save_curves(folder / "measures" / "roles.safetensors", curves)
    result = {
        "schema": SCHEMA, "model": {"name": name, "blocks": blocks, "weights_hash": name},
        "dataset": {
            "name": data, "hash": data, "samples": N, "harmful": N // 2, "harmless": N // 2, "problem_list": [],
        },
        "config": {"seed": 0, "replicates": 400, "limit": None, "positions": "last"},
        "curves": [curve.to_dict() for curve in curves.values()],
        "roles": LayerRoles(*(find_role(name, curve) for name, curve in curves.items())).to_dict(),
        "order_test": {"conclusion": "not tested"},
        **{part: [] for part in ("quadrants", "notes", "figures")},
        **{part: {} for part in ("measures", "consensus", "environment", "timings")},
        **{part: {"done": False, "reason": "not asked for"} for part in ("causal", "sasa", "defenses")},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def row_of(found, role: str, quantity: str):
    return next(row for row in found.tests if (row["role"], row["quantity"]) == (role, quantity))


def test_a_moved_onset_is_found_and_equal_ones_are_not(tmp_path):
    runs = [write_run(tmp_path, "base", 12, (2, 5, 9)), write_run(tmp_path, "tuned", 12, (6, 5, 9), seed=10)]
    found = compare_runs(runs)
    moved = row_of(found, "perception", "onset")
    assert moved["paired"] and moved["difference"] == pytest.approx(4 / 12, abs=0.05)
    assert moved["low"] > 0 and moved["q_value"] < 0.05
    for role in ("semantics", "expression"):
        same = row_of(found, role, "onset")
        assert same["low"] <= 0 <= same["high"] and same["q_value"] > 0.05
    tested = [row for row in found.tests if "reason" not in row]
    assert all(row["q_value"] >= row["p_value"] for row in tested) and len(tested) == 9
    assert not found.notes


def test_paired_difference_equals_the_difference_of_replicates(tmp_path):
    runs = [write_run(tmp_path, "a", 8, (2, 4, 6)), write_run(tmp_path, "b", 8, (2, 4, 6), seed=5, height=1.0)]
    row = row_of(compare_runs(runs), "perception", "value")
    a, b = (step_curve("perception", 8, 2, height, seed) for height, seed in ((2.0, 0), (1.0, 5)))
    at = [int((c.value - 0.5).argmax()) for c in (a, b)]
    delta = b.replicates[:, at[1]] - a.replicates[:, at[0]]
    assert row["difference"] == pytest.approx(b.value[at[1]] - a.value[at[0]])
    np.testing.assert_allclose([row["low"], row["high"]], np.quantile(delta, [0.025, 0.975]), atol=1e-12)


def test_relative_depth_over_models_of_different_size_and_data(tmp_path):
    runs = [write_run(tmp_path, "small", 8, (2, 4, 6)), write_run(tmp_path, "large", 16, (5, 9, 13), data="other")]
    found = compare_runs(runs)
    row = row_of(found, "semantics", "onset")
    assert not row["paired"] and abs(row["difference"]) < 1 / 8 and row["q_value"] > 0.05
    assert "different items" in found.notes[0]
    # block 5 of 16 ends at 6 / 16 and block 2 of 8 at 3 / 8: the same place; block 6 of 8 is not block 3 of 16
    late, early = (np.full(99, x) for x in (7 / 8, 4 / 16))
    assert _apart(np.full(99, 3 / 8), np.full(99, 6 / 16), 8, 16) == 1.0
    assert _apart(late, early, 8, 16) == _apart(early, late, 16, 8) == pytest.approx(0.02)


def test_roles_that_are_not_there_and_runs_without_draws(tmp_path):
    first = write_run(tmp_path, "a", 8, (2, 4, 6))
    second = write_run(tmp_path, "b", 8, (2, 4, 6), height=0.0)
    row = row_of(compare_runs([first, second]), "perception", "onset")
    assert row["reason"] == "b: perception not found"
    (second / "measures" / "roles.safetensors").unlink()
    found = compare_runs([first, second])
    assert all("no replicates" in row["reason"] for row in found.tests) and "not tested" in found.notes[0]
    out = write_comparison(found, tmp_path / "drawn")
    drawn = np.asarray(Image.open(out / "comparison.png").convert("L"))
    assert (drawn < 128).mean() > 0.005  # words and lines, not an empty page


def test_command_writes_figure_and_json(tmp_path, capsys):
    runs = [str(write_run(tmp_path, f"run{i}", 8 + 2 * i, (2 + i, 4, 6))) for i in range(3)]
    out = tmp_path / "out"
    assert main(["compare", *runs, "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "comparison.json").read_text())
    assert len(printed["tests"]) == 27 and [run["name"] for run in printed["runs"]] == ["run0", "run1", "run2"]
    assert (out / "comparison.svg").read_text().lstrip().startswith("<?xml")
    assert main(["compare", *runs, "--out", str(out)]) == 0  # the same again is welcome
    assert "Differences" in capsys.readouterr().out


def test_wrong_input_is_said_clearly(tmp_path, capsys):
    run = write_run(tmp_path, "a", 8, (2, 4, 6))
    with pytest.raises(UsageError, match="at least two"):
        compare_runs([run])
    with pytest.raises(UsageError, match="given twice"):
        compare_runs([run, tmp_path / "." / "a"])
    with pytest.raises(RunFolderError, match=r"no result\.json"):
        compare_runs([run, tmp_path])
    assert main(["compare", str(run), str(tmp_path / "nothing")]) == 8
    assert "holds no result.json" in capsys.readouterr().err
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("keep")
    other = write_run(tmp_path, "b", 8, (2, 4, 6))
    assert main(["compare", str(run), str(other), "--out", str(tmp_path / "taken")]) == 8
    kept = tmp_path / "a" / "measures" / "roles.safetensors"
    kept.write_bytes(b"half")
    assert main(["compare", str(run), str(other)]) == 3
    assert "remove it and run again" in capsys.readouterr().err


def test_names_of_equal_models_are_told_apart(tmp_path):
    first, second = (write_run(tmp_path, name, 8, (2, 4, 6)) for name in ("x", "y"))
    data = json.loads((second / "result.json").read_text())
    data["model"]["name"] = "x"
    (second / "result.json").write_text(json.dumps(data))
    assert [run.name for run in compare_runs([first, second]).runs] == ["x", "y"]
    assert replace(compare_runs([first, second]), notes=()).to_dict()["runs"][1]["folder"].endswith("y")
