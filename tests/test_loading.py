"""Loading: from a folder, checked; and what every wrong name, folder or family says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lvlm_lens.data import ImageObject, Sample
from lvlm_lens.errors import DataError, ModelError
from lvlm_lens.models import LVLM
from lvlm_lens.models.processors import StillVideoProcessor
from lvlm_lens.models.tiny import tiny_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for family in ("llava", "qwen2_5_vl", "llama"):
        folder = tmp_path_factory.mktemp("checkpoints") / f"tiny-{family}"
        model, owner = tiny_model(family)
        model.save_pretrained(folder)
        owner.save_pretrained(folder)
        made[family] = folder
    return made


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "llama"])
def test_a_saved_model_loads_checked_and_gives_the_same_logits(folders, family):
    loaded = LVLM.from_pretrained(folders[family])
    built = LVLM(*tiny_model(family))
    assert loaded.name == f"tiny-{family}" and loaded.weights_hash() == built.weights_hash()
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    images = (ImageObject(Image.fromarray(pixels)),) if built.takes_images else ()
    sample = Sample("a", "Is it safe", images)
    ours, theirs = loaded.encode(sample), built.encode(sample)
    assert torch.equal(ours.inputs["input_ids"], theirs.inputs["input_ids"])
    torch.testing.assert_close(loaded.logits(ours), built.logits(theirs), atol=1e-3, rtol=1e-3)
    assert LVLM.from_pretrained(folders[family], dtype="bfloat16").dtype == torch.bfloat16


def test_weights_of_more_than_2_to_the_24_values_have_a_hash(monkeypatch):
    from lvlm_lens.models import lvlm

    monkeypatch.setattr(lvlm, "_FULL_HASH_BYTES", 2**20)
    model, tokenizer = tiny_model("llama")
    large = torch.nn.Embedding(2**18 + 1, 64)  # the last index, 2^24 + 63, is no float32 number
    model.extra = large
    loaded = LVLM(model, tokenizer)
    before = loaded.weights_hash()
    assert before.startswith("sampled-") and loaded.weights_hash() == before
    with torch.no_grad():
        large.weight[-1, -1] += 1  # the last value is among those that are read
    assert loaded.weights_hash() != before


def test_videos_are_refused_where_their_library_is_missing():
    with pytest.raises(DataError, match="give pictures"):
        StillVideoProcessor()([np.zeros((2, 8, 8, 3))])


def test_a_checkpoint_whose_parts_lie_is_refused_unless_told(folders, monkeypatch):
    from dataclasses import replace

    from lvlm_lens.models import anatomy

    monkeypatch.setitem(anatomy.FAMILIES, "llava", replace(anatomy.FAMILIES["llava"], mid_norm="input_layernorm"))
    with pytest.raises(ModelError, match="fails its checks: blocks add up"):
        LVLM.from_pretrained(folders["llava"])
    assert LVLM.from_pretrained(folders["llava"], check=False).n_blocks == 4


def test_a_row_whose_part_is_missing_names_it(folders, monkeypatch):
    from dataclasses import replace

    from lvlm_lens.models import anatomy

    monkeypatch.setitem(anatomy.FAMILIES, "llama", replace(anatomy.FAMILIES["llama"], norm="last_norm"))
    with pytest.raises(ModelError, match="no norm at 'last_norm'"):
        LVLM.from_pretrained(folders["llama"])


def test_wrong_names_say_what_is_near(folders, monkeypatch):
    with pytest.raises(ModelError, match="did you mean mini"):
        LVLM.from_pretrained("minni")
    with pytest.raises(ModelError, match="did you mean tiny-llava"):
        LVLM.from_pretrained(folders["llava"].parent / "tiny-lava")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        LVLM.from_pretrained("nobody/never-downloaded")


def test_broken_folders_say_what_is_broken(folders, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        LVLM.from_pretrained(empty)
    garbled = tmp_path / "garbled"
    garbled.mkdir()
    (garbled / "config.json").write_text("{ not json")
    with pytest.raises(ModelError, match="cannot be read"):
        LVLM.from_pretrained(garbled)
    unknown = tmp_path / "unknown"
    unknown.mkdir()
    (unknown / "config.json").write_text(json.dumps({"model_type": "never_heard_of"}))
    with pytest.raises(ModelError, match="cannot be read"):
        LVLM.from_pretrained(unknown)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((folders["llama"] / "config.json").read_text())
    with pytest.raises(ModelError, match="cannot be loaded"):
        LVLM.from_pretrained(bare)
    torn = tmp_path / "torn"
    torn.mkdir()
    for file in folders["llama"].iterdir():
        data = file.read_bytes()
        (torn / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    with pytest.raises(ModelError, match="cannot be loaded"):
        LVLM.from_pretrained(torn)
