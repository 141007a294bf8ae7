"""A sweep with an adapter and the same without it: two runs, their paired differences, and what they are called."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from lvlm_lens.against_base import sweep_against_base
from lvlm_lens.config import SweepConfig
from lvlm_lens.models.tiny import tiny_model

peft = pytest.importorskip("peft")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny language model, an adapter on it, 24 labelled requests, and both sweeps."""
    root = tmp_path_factory.mktemp("against")
    model, tokenizer = tiny_model("llama")
    model.save_pretrained(root / "base")
    tokenizer.save_pretrained(root / "base")
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    wrapped.save_pretrained(root / "lora")
    with (root / "data.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text", "label"])
        for n in range(24):
            rows.writerow([f"r{n}", f"May I {'burn' if n % 2 else 'draw'} house {n}?", "unsafe" if n % 2 else "safe"])
    config = SweepConfig(
        model=str(root / "base"), adapter=str(root / "lora"), dataset=str(root / "data.csv"), out=str(root / "run"),
        permutations=20, replicates=100, folds=2, pairs=0, sasa=False, defenses=False, twin=False,
        measures="angular_gap", columns={"id": "id", "text": "text", "label": "label"},
    )  # fmt: skip
    heard: list[str] = []

    def tell(name):
        return lambda stage, done, total: heard.append(name)

    return root, sweep_against_base(config, tell), heard


def test_both_are_swept_and_their_differences_are_paired(made):
    root, found, heard = made
    assert heard[0] == "base" and heard[-1] == "adapter"
    base, adapted = found.base.data["model"], found.adapted.data["model"]
    assert base["adapter"] is None and adapted["adapter"]["largest_difference"] > 0
    assert base["weights_hash"] != adapted["weights_hash"]
    assert found.base.data["dataset"]["hash"] == found.adapted.data["dataset"]["hash"]
    row = next(r for r in found.comparison.tests if r["role"] == "perception" and r["quantity"] == "value")
    # by hand: the height of each run at its own best block above chance
    heights = [run.curves["perception"].value for run in (found.base, found.adapted)]
    assert row["paired"] and row["first"] == "base" and row["second"] == "adapter"
    assert row["difference"] == pytest.approx(row["second_value"] - row["first_value"])
    for height, value in zip(heights, (row["first_value"], row["second_value"]), strict=True):
        assert np.abs(np.asarray(height) - value).min() < 1e-5
    kept = json.loads((root / "run" / "comparison" / "comparison.json").read_text())
    assert [run["name"] for run in kept["runs"]] == ["base", "adapter"]
    assert {path.name for path in (root / "run").iterdir()} == {"base", "adapter", "comparison"}
