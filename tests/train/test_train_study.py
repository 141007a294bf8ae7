"""The study and the table of controls: windows, means over seeds, words; whole runs of a few steps are slow tests."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from lvlm_lens.cli import main
from lvlm_lens.plots.training import study_figure
from lvlm_lens.stages.training import HEADS, TrainingTable
from lvlm_lens.stages.training_study import _differences, _rows, study_markdown, windows_of


@dataclass
class Found:
    name: str
    onset: int | None
    peak: int | None
    reason: str = ""


def test_windows_begin_at_the_onset_and_have_one_width():
    roles = [Found("perception", 2, 4), Found("semantics", 5, 7), Found("expression", 11, 11)]
    windows, notes = windows_of(roles, 12)  # type: ignore[arg-type]
    assert windows == {"perception": "2-4", "semantics": "5-7", "expression": "9-11"} and notes == []


def test_a_role_that_was_not_found_gets_its_peak_and_says_so():
    roles = [
        Found("perception", None, 6, "the null is not beaten"),
        Found("expression", 5, 6),
        Found("semantics", None, None),
    ]
    windows, notes = windows_of(roles, 12, width=4)  # type: ignore[arg-type]
    assert windows == {"perception": "4-7", "expression": "5-8"}
    assert "perception was not found (the null is not beaten); its window lies around block 6" in notes
    assert any(note.startswith("semantics: no curve") for note in notes)
    same, notes = windows_of([Found("perception", 1, 1), Found("semantics", 1, 1)], 4, width=2)  # type: ignore[arg-type]
    assert same["perception"] == same["semantics"] and "same window" in notes[-1]


def _outcomes(attacks):
    return {
        "attack_success": {f"h{n}": (value, f"g{n}") for n, value in enumerate(attacks)},
        "over_refusal": {f"s{n}": (0.0, f"g{n}") for n in range(8)},
        "accuracy": {},
    }


def test_rates_are_means_over_seeds_of_each_request():
    outcomes = {
        "none": _outcomes([1.0] * 8),
        "late-0": _outcomes([1.0] * 4 + [0.0] * 4),
        "late-1": _outcomes([0.0] * 8),
    }
    rows = _rows("words", outcomes, {"late": "9-11"}, (0, 1))
    assert [row["window"] for row in rows] == ["none", "late"]
    cell = rows[1]["attack_success"]
    assert cell["value"] == 0.25 and cell["seeds"] == [0.5, 0.0] and cell["total"] == 8
    assert cell["low"] < 0.25 < cell["high"] and rows[0]["attack_success"]["value"] == 1.0
    assert rows[1]["accuracy"]["total"] == 0
    text = study_markdown({"rows": rows, "notes": ["a note"]})
    assert "| late | 9-11 | words | 25.0 [" in text and "(50, 0)" in text and text.endswith("* a note")
    figure = study_figure(rows)
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "attack success (%)",
        "over-refusal (%)",
        "right on harmless (%)",
    ]


def test_differences_are_of_the_same_requests():
    outcomes = {"none": _outcomes([1.0] * 8)}
    for seed in (0, 1):
        outcomes[f"late-{seed}"] = _outcomes([1.0] * 4 + [0.0] * 4)
        outcomes[f"early-{seed}"] = _outcomes([0.0] * 8)
    found = _differences("words", outcomes, {"late": "9-11", "early": "0-2"}, (0, 1))
    told = {(row["window"], row["minus"], row["measure"]): row for row in found}
    assert told["late", "none", "attack_success"]["value"] == -0.5
    everywhere = told["early", "none", "attack_success"]
    assert everywhere["value"] == everywhere["low"] == everywhere["high"] == -1.0  # each request alike: no spread
    between = told["early", "late", "attack_success"]
    assert between["low"] <= between["value"] == -0.5 <= between["high"] and between["total"] == 8
    assert not any(measure == "accuracy" for _, _, measure in told)
    text = study_markdown(
        {"rows": _rows("words", outcomes, {"late": "9-11"}, (0, 1)), "notes": [], "differences": found}
    )
    assert "| early minus none | words | -100.0 [-100.0, -100.0] | +0.0 [+0.0, +0.0] | - |" in text


def test_a_table_prints_what_it_has_and_dashes_for_the_rest():
    rate = {"value": 0.5, "low": 0.25, "high": 0.75, "total": 8}
    rows = [
        {"system": "none", **dict.fromkeys(HEADS, rate)},
        {"system": "sft", "attack_success": rate, "training": {"flops": 2e12}},
    ]
    lines = TrainingTable(rows, [], {}, []).to_markdown().splitlines()
    assert lines[2].count("50.0 [25.0, 75.0]") == len(HEADS) and lines[2].endswith("| - |")
    assert lines[3].count("50.0") == 1 and lines[3].endswith("| 2e+12 |")


FEW = ["--steps", "2", "--limit", "12", "--rank", "2", "--batch-size", "2", "--rate", "5e-3", "--quiet",
       "--test-limit", "12", "--max-new-tokens", "12"]  # fmt: skip


@pytest.mark.slow
def test_study_on_mini(tmp_path):
    words = ["train", "study", *FEW, "--seeds", "0,1", "--windows", "perception=2-4,expression=9-11"]
    assert main([*words, "--out", str(tmp_path / "study")]) == 0
    found = json.loads((tmp_path / "study" / "study.json").read_text())
    assert [(row["window"], row["form"]) for row in found["rows"]] == [
        (window, form) for form in ("words", "pictures") for window in ("none", "perception", "expression")
    ]
    drawn = np.asarray(Image.open(tmp_path / "study" / "study.png").convert("L"))
    assert (drawn < 128).mean() > 0.001
    record = json.loads((tmp_path / "study" / "expression-1" / "training.json").read_text())
    assert {row["blocks"] for row in record["audits"]["before"]["seats"]} == {"9-11"}
    assert record["settings"]["control"] == "text_only" and record["audits"]["before"]["pictures"]["rows"] == 0
    trainable = {
        json.loads((tmp_path / "study" / name / "training.json").read_text())["cost"]["trainable"]
        for name in ("perception-0", "perception-1", "expression-0", "expression-1")
    }
    assert len(trainable) == 1  # equal budgets
    assert main([*words, "--out", str(tmp_path / "study")]) == 0  # finished trainings are read


@pytest.mark.slow
def test_a_method_and_its_controls_on_mini(tmp_path):
    assert main(["train", "sft", "--controls", *FEW, "--out", str(tmp_path / "table")]) == 0
    found = json.loads((tmp_path / "table" / "table.json").read_text())
    assert [row["system"] for row in found["rows"]] == [
        "none",
        "sft",
        "sft-benign_refusals",
        "sft-shuffled",
        "sft-text_only",
    ]
    assert all(row[name]["total"] > 0 for row in found["rows"] for name in HEADS if name != "reaches_answer")
    assert found["setting"]["one_word"].keys() == {"harmful", "harmless"}
    assert "| sft-shuffled |" in (tmp_path / "table" / "table.md").read_text()
