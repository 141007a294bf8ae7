"""A sweep with an adapter and the same without it: two runs, their paired differences, and what they are called."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from lvlm_lens.against_base import sweep_against_base
from lvlm_lens.config import SweepConfig
from lvlm_lens.measures.draws import load_curves
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
        for n in range(24):  # every fifth verb is the other label's, so that no probe is perfect and replicates differ
            verb = "burn" if (n % 2) != (n % 5 == 0) else "draw"
            rows.writerow([f"r{n}", f"May I {verb} house {n}?", "unsafe" if n % 2 else "safe"])
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
    # by hand: each run's height at its own best block above chance, and the quantiles of the differences of replicates
    assert row["paired"] and row["first"] == "base" and row["second"] == "adapter"
    heights, drawn = [], []
    for name in ("base", "adapter"):
        curve = load_curves(root / "run" / name / "measures" / "roles.safetensors")[0]["perception"]
        assert curve.best is not None and curve.best.replicates.shape == (100,)
        heights.append(curve.best.value)
        drawn.append(curve.best.replicates)
    assert row["difference"] == pytest.approx(heights[1] - heights[0], abs=1e-6)
    apart = drawn[1] - drawn[0]
    assert (row["low"], row["high"]) == pytest.approx(np.quantile(apart, [0.025, 0.975]), abs=1e-6)
    # paired is not the same as independent: shuffling one side gives another interval
    shuffled = drawn[1] - np.random.default_rng(0).permutation(drawn[0])
    assert abs(np.std(apart) - np.std(shuffled)) > 1e-3
    assert row["replicates"] == np.isfinite(apart).sum() and row["low"] < row["high"]
    kept = json.loads((root / "run" / "comparison" / "comparison.json").read_text())
    assert [run["name"] for run in kept["runs"]] == ["base", "adapter"]
    assert {path.name for path in (root / "run").iterdir()} == {"base", "adapter", "comparison"}
