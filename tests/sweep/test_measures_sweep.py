"""``--measures`` on the command line: what lands in the run folder, what continues, and what a wrong name gets."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from command_words import arguments

from lvlm_lens.cli import main
from lvlm_lens.comparison import compare_runs
from lvlm_lens.report import render_report
from lvlm_lens.stages.measuring import HEADLINES, MEASURES
from lvlm_lens.sweep import SweepResult


@pytest.fixture(scope="module")
def words(checkpoints, table, tmp_path_factory):
    out = tmp_path_factory.mktemp("measured") / "out"
    return ["locate", *arguments(checkpoints, table, out)[1:], "--limit", "40", "--quiet"], out


def test_all_measures_then_the_same_folder_again(words, capsys):
    command, out = words
    assert main(command) == 0
    first = SweepResult.load(out)
    assert first.data["causal"]["done"] is first.data["sasa"]["done"] is False
    assert set(HEADLINES.values()) <= set(first.data["measures"])
    assert "heads" not in {figure["name"] for figure in first.data["figures"]}
    kept = {file: file.stat().st_mtime_ns for file in (out / "measures").glob("*.safetensors") if file.stem != "roles"}

    assert main([*command, "--measures", "all", "--json"]) == 0  # more measures continue the same run
    printed = json.loads(capsys.readouterr().out)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert set(printed["measures"]) == set(MEASURES)
    for name, row in printed["measures"].items():
        assert row["source"] and row["standing"] in ("reached", "missed", "untested")
        assert row["done"] or row["reason"], name
    assert printed["roles"] == first.data["roles"]
    curves = {curve["name"]: curve for curve in printed["curves"]}
    for row in printed["measures"].values():
        assert not row["done"] or {row["curve"], *row["others"]} <= set(curves)
    assert set(pd.read_parquet(out / "curves.parquet")["curve"]) == set(curves)
    assert set(printed["consensus"]) == {"perception", "semantics", "expression"}
    for found in printed["consensus"].values():
        assert not found["found"] and found["reason"]  # random weights: no role, by any majority
        assert set(found["excluded"]) >= {n for n in found["members"] if not MEASURES[n].votes}
    assert printed["robustness"]["done"] and set(printed["robustness"]["summary"]) == set(printed["consensus"])
    figures = {figure["name"] for figure in printed["figures"]}
    assert figures >= {"atlas", "heads", "robustness"}
    assert render_report(out).count("<figure>") == len(printed["figures"])


def test_a_wrong_name_is_refused_before_anything_is_read(words, tmp_path, capsys):
    command, _ = words
    other = [str(tmp_path / "never") if "measured" in word else word for word in command]
    assert main([*other, "--measures", "angular_gap,knockout_flwo"]) == 2
    message = capsys.readouterr().err
    assert "did you mean knockout_flow" in message
    assert not (tmp_path / "never" / "activations").exists()


def test_real_runs_compare(words, checkpoints, table, tmp_path, capsys):
    command, out = words
    if not (out / "result.json").is_file():
        assert main(command) == 0
    second = tmp_path / "qwen"
    assert main(["locate", *arguments(checkpoints, table, second, "qwen2_5_vl")[1:], "--limit", "40", "--quiet"]) == 0
    found = compare_runs([out, second])
    value = next(r for r in found.tests if (r["role"], r["quantity"]) == ("perception", "value"))
    assert value["paired"] and value["low"] <= value["difference"] <= value["high"]
    onset = next(r for r in found.tests if (r["role"], r["quantity"]) == ("perception", "onset"))
    assert onset["reason"].endswith("perception not found")
