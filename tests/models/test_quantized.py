"""Quantised and offloaded weights: read, located and patched, and the twin made or refused with its reason."""

import json

import numpy as np
import pytest
import torch
from prompts import picture
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from lvlm_lens import LVLM, gather, patch_grid
from lvlm_lens.data import Pair, Sample
from lvlm_lens.errors import ModelError, UsageError
from lvlm_lens.measures.unembedding import unembedding_of
from lvlm_lens.models import extras
from lvlm_lens.models.placement import read_device_map
from lvlm_lens.models.tiny import tiny_model

SAMPLES = [Sample("a", "Is it safe?", (picture(0),)), Sample("b", "May I take it?", (picture(1),))]
PAIRS = [Pair(SAMPLES[0], Sample("c", SAMPLES[0].text, (picture(7),)))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("checkpoint") / "tiny-llava"
    model, processor = tiny_model("llava")
    model.save_pretrained(place)
    processor.save_pretrained(place)
    return place


def holds(model: LVLM, packed: str) -> None:
    """Hash, capture, lens, patch; the twin is refused with a reason."""
    assert model.weights_hash() == model.weights_hash()
    acts = model.capture(SAMPLES, "resid_post")
    assert np.isfinite(np.asarray(acts["resid_post"])).all()
    evidence = gather(model, SAMPLES)
    last = torch.from_numpy(evidence.block(model.n_blocks - 1))
    expected = model.logits(model.encode(SAMPLES))
    torch.testing.assert_close(unembedding_of(model).logits(last).float(), expected, atol=0.05, rtol=0.02)
    grid = patch_grid(model, PAIRS, "resid_post", "image | last", lambda x: x[:, 5] - x[:, 9], per="span", null=0)
    plain = patch_grid(
        model, PAIRS, "resid_post", "image | last", lambda x: x[:, 5] - x[:, 9], per="span", null=0, exact="full"
    )
    np.testing.assert_allclose(grid.values, plain.values, atol=0.05)
    with pytest.raises(ModelError, match=f"codes of {packed}.*--no-twin"), model.random_twin(0):
        pass


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_bitsandbytes(folder, bits):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model = LVLM.from_pretrained(folder, quantize=bits)
    assert model.provenance()["quantized"] == f"bitsandbytes {bits}"
    plain = LVLM.from_pretrained(folder)
    before = plain.logits(plain.encode(SAMPLES))
    if (
        bits == "4bit"
    ):  # the oracle: transformers' model with the numbers that the codes stand for; 8bit rounds inputs too
        codes = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        coded = AutoModelForImageTextToText.from_pretrained(folder, quantization_config=codes)
        with torch.no_grad():
            for name, layer in coded.named_modules():
                if isinstance(layer, bitsandbytes.nn.Linear4bit):
                    numbers = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
                    plain.model.get_submodule(name).weight.copy_(numbers)
            expected = plain.model(**plain.encode(SAMPLES).inputs).logits[:, -1]
        limit = 0.05  # some CPUs multiply these layers in bfloat16
    else:
        expected, limit = before, 1.5
    found = model.logits(model.encode(SAMPLES))
    assert (found - before).abs().max() > 0
    assert (found - expected).abs().max() < limit, "quantised, and still the same model"
    holds(model, "bitsandbytes")


@pytest.mark.parametrize("twice", [False, True], ids=["scales", "quantised scales"])
def test_four_bit_weights_are_the_same_before_and_after_forwards(folder, tmp_path, twice):
    """bitsandbytes packs layers in their first forward on some CPUs, which rounds scales: hash and numbers changed."""
    pytest.importorskip("bitsandbytes")
    codes = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=twice)
    stored = AutoModelForImageTextToText.from_pretrained(folder, quantization_config=codes)
    stored.save_pretrained(tmp_path)
    LVLM.from_pretrained(folder).processor.save_pretrained(tmp_path)
    model = LVLM.from_pretrained(tmp_path, check=False)
    before = model.weights_hash()
    first = model.logits(model.encode(SAMPLES))
    for _ in range(2):
        assert model.weights_hash() == before
        torch.testing.assert_close(model.logits(model.encode(SAMPLES)), first, atol=0, rtol=0)
    assert LVLM.from_pretrained(tmp_path).weights_hash() == before, "the check on load changes nothing either"


def test_four_bits_of_a_width_that_the_cpu_kernel_cannot_pack():
    """bitsandbytes' packed kernel of AVX512-BF16 needs multiples of 64; mini is 160 wide."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model = LVLM.from_pretrained("mini", quantize="4bit")
    layer = next(m for m in model.model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit) and m.in_features == 160)
    x = torch.randn(2, 160, generator=torch.Generator().manual_seed(0))
    codes = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, codes.float(), layer.bias), atol=1e-4, rtol=1e-4)


def test_torchao_as_it_is(folder):
    pytest.importorskip("torchao")
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model, processor = tiny_model("llava")
    quantize_(model.model.language_model, Int8WeightOnlyConfig())
    holds(LVLM(model, processor), "torchao")


def test_quanto_as_it_is():
    pytest.importorskip("optimum.quanto")
    from optimum.quanto import freeze, qint8, quantize

    model, processor = tiny_model("llava")
    quantize(model.model.language_model, weights=qint8)
    freeze(model.model.language_model)
    holds(LVLM(model, processor), "quanto")


def test_quantising_twice_and_missing_packages_say_what_to_do(folder, tmp_path, monkeypatch):
    stored = json.loads((folder / "config.json").read_text())
    again = tmp_path / "again"
    again.mkdir()
    for file in folder.iterdir():
        if file.name != "config.json":
            (again / file.name).symlink_to(file)
    (again / "config.json").write_text(
        json.dumps({**stored, "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}})
    )
    with pytest.raises(UsageError, match="quantised already"):
        LVLM.from_pretrained(again, quantize="4bit")
    with pytest.raises(UsageError, match="4bit, 8bit"):
        LVLM.from_pretrained(folder, quantize="3bit")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs the package bitsandbytes.*pip install 'lvlm-lens\[adapters\]'"):
        LVLM.from_pretrained(folder, quantize="4bit")


def test_device_maps_as_words_and_as_json():
    assert read_device_map("auto") == "auto" and read_device_map("cuda:1") == {"": "cuda:1"}
    assert read_device_map('{"": 0, "lm_head": "cpu"}') == {"": 0, "lm_head": "cpu"}
    with pytest.raises(UsageError, match="leaves no part on a device"):
        read_device_map("disk")
    with pytest.raises(UsageError, match="is no JSON"):
        read_device_map("{lm_head")
    with pytest.raises(UsageError, match=r"'atuo' is no device.*did you mean auto"):
        read_device_map("atuo")
    with pytest.raises(UsageError, match=r"'gpu' is no device"):
        read_device_map('{"": "gpu"}')
    if not torch.cuda.is_available():
        for text in ("cuda", '{"": 0}'):
            with pytest.raises(UsageError, match="no such device on this machine"):
                LVLM.from_pretrained("mini", device_map=text)


def test_offloaded_to_disk_is_read_located_patched_and_has_its_twin(folder):
    away = json.dumps({"": "cpu", "model.language_model.layers": "disk", "lm_head": "disk"})
    model = LVLM.from_pretrained(folder, device_map=away)
    whole = LVLM.from_pretrained(folder)
    assert sum(parameter.is_meta for parameter in model.model.parameters()) > 10
    assert model.weights_hash() == whole.weights_hash()
    np.testing.assert_array_equal(gather(model, SAMPLES).resid, gather(whole, SAMPLES).resid)
    question = (PAIRS, "resid_post", "image | last", lambda x: x[:, 5] - x[:, 9])
    grids = [patch_grid(one, *question, per="span", null=0) for one in (model, whole)]
    assert grids[0].engine == "resumed"
    np.testing.assert_allclose(grids[0].values, grids[1].values, atol=1e-5)
    with model.random_twin(1) as twin:
        found = gather(twin, SAMPLES).resid
    with whole.random_twin(1) as twin:
        np.testing.assert_array_equal(found, gather(twin, SAMPLES).resid)


def test_a_broken_gguf_file_and_a_missing_package_say_so(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(ModelError, match=r"model\.gguf.* cannot be read"):
        LVLM.from_pretrained(tmp_path / "model.gguf")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install gguf"):
        LVLM.from_pretrained(tmp_path / "model.gguf")
