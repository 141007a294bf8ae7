"""The wide battery: its shapes are the published ones, its rows compare what they say, its record continues."""

from __future__ import annotations

import json

import pytest
import torch

from lvlm_lens.cli import main
from lvlm_lens.errors import RunFolderError
from lvlm_lens.models.tiny import tiny_model
from lvlm_lens.wide import SHAPES, run_battery
from lvlm_lens.wide import row as room
from lvlm_lens.wide.battery import SCHEMA
from lvlm_lens.wide.shapes import Shape

PUBLISHED = {  # hidden size, MLP, heads, key-value heads, vocabulary, tower width, patch size
    "LLaVA-1.5-7B": (4096, 11008, 32, 32, 32064, 1024, 14),
    "LLaVA-OneVision-7B": (3584, 18944, 28, 4, 152128, 1152, 14),
    "Qwen2.5-VL-7B": (3584, 18944, 28, 4, 152064, 1280, 14),
    "Gemma-3-4B": (2560, 10240, 8, 4, 262208, 1152, 14),
    "InternVL3-8B": (3584, 18944, 28, 4, 151674, 1024, 14),
    "SmolVLM-2.2B": (2048, 8192, 32, 32, 49280, 1152, 14),
}


@pytest.mark.parametrize("name", SHAPES)
def test_widths_and_vocabularies_are_the_published_ones(name):
    kind, config, _ = SHAPES[name].build()
    text, vision = config.text_config, config.vision_config
    patch = vision.patch_size[0] if isinstance(vision.patch_size, (list, tuple)) else vision.patch_size
    found = (
        text.hidden_size, text.intermediate_size, text.num_attention_heads, text.num_key_value_heads, text.vocab_size,
        vision.hidden_size, patch,
    )  # fmt: skip
    assert found == PUBLISHED[name]
    with torch.device("meta"):
        model = kind(config)
    head = model.get_output_embeddings().weight
    assert head.shape == (text.vocab_size, text.hidden_size)
    assert len(model.get_submodule(SHAPES[name].decoder).layers) == 2


def tiny() -> tuple:
    """A real LLaVA of two blocks, so that a row takes seconds."""
    model, processor = tiny_model("llava")
    model.config.text_config.num_hidden_layers = 2
    return type(model), model.config, processor


@pytest.fixture
def shape(monkeypatch):
    monkeypatch.setitem(SHAPES, "tiny", Shape("none", 4, 2, tiny, "none"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_holds_every_stage_against_plain_forwards(shape, dtype):
    found = room.measure_row("tiny", dtype, "cpu", 2)
    assert found["ok"] and set(found["difference"]) == {"capture", "lens", "locate", "patch", "SASA"}
    assert found["items"] == 16 and found["items_with_picture"] == 2 and found["image_tokens"] == 16
    assert found["peak_bytes"] > found["weights_bytes"] > 0
    assert found["noise_padded"] < found["tolerance"]
    assert found["dtype"] == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("stage", ["capture", "patch", "SASA"])
def test_a_wrong_stage_is_seen(shape, monkeypatch, stage):
    """The oracle shares nothing with what it judges: a block that is off by one of a hundred shows."""
    real = {"capture": room.capture, "patch": room.patch_grid, "SASA": room.extract}[stage]

    def wrong(*args, **options):
        found = real(*args, **options)
        if stage == "capture":
            next(iter(found.arrays.values()))[...] *= 1.01
        elif stage == "patch":
            found.values[...] += 0.5
        else:
            for table in found.cells.values():
                table *= 1.01
        return found

    monkeypatch.setattr(room, {"capture": "capture", "patch": "patch_grid", "SASA": "extract"}[stage], wrong)
    found = room.measure_row("tiny", torch.float32, "cpu", 2)
    assert not found["ok"] and found["difference"][stage] > found["tolerance"]


def test_the_record_continues_and_is_nothing_else(tmp_path, capsys):
    done = [{"model": "Gemma-3-4B", "dtype": "float32", "device": "cpu", "ok": True}]
    file = tmp_path / "wide.json"
    file.write_text(json.dumps({"schema": SCHEMA, "machine": {}, "rows": done, "failed": []}))
    said: list[str] = []
    assert run_battery(file, ["Gemma-3-4B"], ("float32",), "cpu", said.append)["rows"] == done and not said
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(RunFolderError, match="no record of the wide battery"):
        run_battery(tmp_path / "other.json", ["Gemma-3-4B"], ("float32",))
    assert main(["models", "--check", "--wide", "Gemma-3-4", "--out", str(file)]) == 2
    assert "Gemma-3-4B" in capsys.readouterr().err
    assert main(["models", "--wide"]) == 2 and "--check --wide" in capsys.readouterr().err
