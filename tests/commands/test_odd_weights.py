"""A model with an adapter, in four bits, and offloaded to disk: through sweep, locate and patch by their commands."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from lvlm_lens.cli import main
from lvlm_lens.models.tiny import tiny_model

PAIRS = 10
SMALL = ["--permutations", "20", "--replicates", "100", "--folds", "2", "--measures", "angular_gap", "--no-defenses"]
AWAY = json.dumps({"": "cpu", "model.language_model.layers": "disk"})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny LLaVA, an adapter on it, and matched pairs of pictures under one question each."""
    root = tmp_path_factory.mktemp("odd")
    model, processor = tiny_model("llava")
    model.save_pretrained(root / "base")
    processor.save_pretrained(root / "base")
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=r".*language_model.*(q_proj|down_proj)"))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    wrapped.save_pretrained(root / "lora")
    rng = np.random.default_rng(0)
    with (root / "data.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text", "image", "label", "group", "counterfactual"])
        for n in range(2 * PAIRS):
            bright = 130 if (n % 2) != (n % 9 == 0) else 0  # what tells the labels apart, not always
            pixels = rng.integers(bright, bright + 120, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"{n}.png")
            label = "unsafe" if n % 2 else "safe"
            rows.writerow([f"r{n}", f"May I keep number {n // 2}?", f"{n}.png", label, f"g{n // 2}", f"r{n ^ 1}"])
    return root


def words(root, command, out, *more):
    given = ["--model", str(root / "base"), "--dataset", str(root / "data.csv"), "--root", str(root)]
    return [command, *given, "--out", str(root / out), *more]


def patched(root, out, *more):
    """``patch`` on every pair; its JSON."""
    options = ["--all-pairs", "--sites", "resid_post", "--positions", "image,last", "--pairs", str(PAIRS), "--json"]
    return words(root, "patch", out, *options, *more)


@pytest.mark.slow
def test_an_adapter(made, capsys):
    adapter = ["--adapter", str(made / "lora")]
    assert main(words(made, "sweep", "adapter-sweep", *SMALL, *adapter)) == 0
    said = capsys.readouterr()
    result = json.loads((made / "adapter-sweep" / "result.json").read_text())
    record = result["model"]["adapter"]
    assert record["largest_difference"] > 0 and "adapter" in said.err + said.out
    assert f"{record['largest_difference']:.2g}"[:3] in said.err + said.out
    assert main(words(made, "locate", "adapter-locate", *SMALL[:-1], *adapter)) == 0
    located = json.loads((made / "adapter-locate" / "result.json").read_text())
    assert located["model"]["weights_hash"] == result["model"]["weights_hash"]
    capsys.readouterr()
    assert main(patched(made, "adapter-patch", *adapter)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["engine"] == "resumed" and found["verification"]["cells"] > 0 and not found["verification"]["wrong"]


@pytest.mark.slow
def test_four_bits(made, capsys):
    pytest.importorskip("bitsandbytes")
    four = ["--quantize", "4bit"]
    assert main(words(made, "sweep", "four-sweep", *SMALL, *four)) == 0
    result = json.loads((made / "four-sweep" / "result.json").read_text())
    assert result["model"]["quantized"] == "bitsandbytes 4bit"
    assert any("not made" in note and "codes of bitsandbytes" in note for note in result["notes"]), "no twin, and why"
    assert "random_twin" in result["roles"]["perception"]["missing"]
    assert main(words(made, "locate", "four-locate", *SMALL[:-1], *four, "--no-twin")) == 0
    capsys.readouterr()
    assert main(patched(made, "four-patch", *four)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["engine"] == "resumed" and found["verification"]["cells"] > 0 and not found["verification"]["wrong"]


@pytest.mark.slow
def test_offloaded_to_disk_gives_what_the_whole_model_gives(made, capsys):
    away = ["--device-map", AWAY]
    assert main(words(made, "sweep", "whole-sweep", *SMALL)) == 0
    assert main(words(made, "sweep", "away-sweep", *SMALL, *away)) == 0
    whole, apart = (json.loads((made / name / "result.json").read_text()) for name in ("whole-sweep", "away-sweep"))
    assert apart["model"]["weights_hash"] == whole["model"]["weights_hash"]
    assert [curve["name"] for curve in apart["curves"]] == [curve["name"] for curve in whole["curves"]]
    for ours, theirs in zip(apart["curves"], whole["curves"], strict=True):
        np.testing.assert_allclose(ours["value"], theirs["value"], atol=1e-6, err_msg=ours["name"])
    assert apart["roles"] == whole["roles"], "the twin and its controls included"
    assert main(words(made, "locate", "away-locate", *SMALL[:-1], *away)) == 0
    capsys.readouterr()
    found = []
    for name, more in (("whole-patch", []), ("away-patch", away)):
        assert main(patched(made, name, *more)) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[1]["engine"] == "resumed"
    effects = [[cell["effect"] for cell in one["strongest"]] for one in found]
    np.testing.assert_allclose(effects[1], effects[0], atol=1e-5)
