"""The random twin: made of the model's own weights, and undone bit for bit, also when something fails inside."""

import contextlib
import copy
import os
import signal
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from lvlm_lens import LVLM, gather
from lvlm_lens.config import SweepConfig
from lvlm_lens.data import ImageObject, Sample
from lvlm_lens.errors import ModelError, NumericalError
from lvlm_lens.measures.unembedding import unembedding_of
from lvlm_lens.models import twin as twin_module
from lvlm_lens.models.placement import off_its_device
from lvlm_lens.models.tiny import tiny_model
from lvlm_lens.models.weights import full_hash
from lvlm_lens.scale.jobs.reading import ReadingJob
from lvlm_lens.stages import inputs as stages_inputs
from lvlm_lens.stages import reading


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8))


def states(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def model() -> LVLM:
    return LVLM(*tiny_model("llava"))


@pytest.mark.parametrize("part", [2**24, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shuffled_inside_and_the_same_bits_afterwards(model, monkeypatch, part, dtype):
    monkeypatch.setattr(twin_module, "PART", part)
    model.model.to(dtype)
    before = states(model.model)
    with model.random_twin(3) as twin:
        inside = states(twin.model)
        for name, parameter in twin.model.named_parameters():
            own = before[name]
            assert torch.equal(parameter.flatten().float().sort().values, own.flatten().float().sort().values), name
            if own.numel() > 16 and own.flatten().unique().numel() > 8:
                assert (parameter != own).float().mean() > 0.5, f"{name} was not shuffled"
        assert inside.keys() == before.keys()
    after = model.model.state_dict()
    for name, own in before.items():
        assert torch.equal(own, after[name]), name
    with model.random_twin(3) as twin:  # the same seed, the same twin
        assert all(torch.equal(inside[name], value) for name, value in twin.model.state_dict().items())
    with model.random_twin(4) as twin:
        assert not all(torch.equal(inside[name], value) for name, value in twin.model.state_dict().items())


def test_parts_of_a_large_weight_are_spread_over_rows_and_columns(monkeypatch):
    monkeypatch.setattr(twin_module, "PART", 512)
    weight = torch.arange(64 * 96, dtype=torch.float32).reshape(64, 96)
    seen = torch.zeros(weight.numel(), dtype=torch.int64)
    for part, _ in twin_module._parts(weight, "0:w"):
        numbers = part.long()
        assert len(part) <= 512
        seen[numbers] += 1
        assert (numbers // 96).unique().numel() == 64 and (numbers % 96).unique().numel() > 90
    assert bool((seen == 1).all()), "every entry belongs to one part"


@pytest.mark.parametrize("error", [RuntimeError("a reading failed"), KeyboardInterrupt()])
def test_undone_when_a_reading_fails(model, error):
    before = states(model.model)
    with pytest.raises(type(error)), model.random_twin(0) as twin:
        assert not torch.equal(twin.model.lm_head.weight, before["lm_head.weight"])
        raise error
    assert all(torch.equal(before[name], value) for name, value in model.model.state_dict().items())
    assert gather(model, [Sample("a", "Is it safe?", (ImageObject(picture()),))]).resid.any()


@pytest.mark.parametrize("first", [True, False])
def test_undone_when_making_it_is_interrupted(model, monkeypatch, first):
    """Ctrl-C at any weight, before or after its entries have moved: what was shuffled until then is put back."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    before = states(model.model)
    shuffle, calls = twin_module.shuffle, []

    def interrupted(part, seed):
        calls.append(seed)
        if len(calls) == 7 and first:
            os.kill(os.getpid(), signal.SIGINT)
        shuffle(part, seed)
        if len(calls) == 7 and not first:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(twin_module, "shuffle", interrupted)
    with pytest.raises(KeyboardInterrupt), model.random_twin(0):
        raise AssertionError("the block must not begin")
    assert len(calls) == 7
    assert all(torch.equal(before[name], value) for name, value in model.model.state_dict().items())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, usual)


def test_the_model_and_its_twin_cannot_be_mistaken_for_each_other(model):
    sample = [Sample("a", "Is it safe?", (ImageObject(picture()),))]
    with model.random_twin(0) as twin:
        with pytest.raises(ModelError, match="lends its weights to its random twin"):
            gather(model, sample)
        gather(twin, sample)
    with pytest.raises(ModelError, match="was undone when its with block ended"):
        gather(twin, sample)
    gather(model, sample)


def test_a_write_inside_the_block_is_seen(model):
    with pytest.raises(NumericalError, match="not what they were"), model.random_twin(0) as twin, torch.no_grad():
        twin.model.lm_head.weight[0, 0] += 1


def test_the_lens_of_a_twin_outlives_it(model):
    rows = torch.randn(3, model.anatomy.d_model)
    with model.random_twin(0) as twin:
        kept = unembedding_of(twin, keep=True)
        with torch.no_grad():
            expected = copy.deepcopy(twin.anatomy).lens(rows)
    torch.testing.assert_close(kept.logits(rows), expected)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A tiny checkpoint on disk, loaded whole, and with its decoder left on disk."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny, processor = tiny_model("llava")
    tiny.save_pretrained(folder)
    blocks = len(LVLM(tiny, processor).anatomy.blocks)
    away = {f"model.language_model.layers.{n}": "disk" for n in range(blocks)}
    device_map = {
        "model.vision_tower": "cpu",
        "model.multi_modal_projector": "cpu",
        "model.language_model.embed_tokens": "disk",
        "model.language_model.norm": "disk",
        "model.language_model.rotary_emb": "cpu",
        "lm_head": "disk",
        **away,
    }
    partly = AutoModelForImageTextToText.from_pretrained(
        folder, device_map=device_map, offload_folder=str(folder / "offload")
    )
    return LVLM(tiny, processor), LVLM(partly, processor), folder


def test_the_twin_of_an_offloaded_model_is_the_twin_of_the_model(places):
    """Before, shuffling empty parameters did nothing: the control equalled what it controls."""
    whole, away, _ = places
    assert sum(parameter.is_meta for parameter in away.model.parameters()) > 10
    data = [
        Sample(f"s{n}", words, (ImageObject(picture(n)),)) for n, words in enumerate(("Is it safe?", "May I eat it?"))
    ]
    trained = gather(whole, data)
    assert torch.equal(torch.from_numpy(gather(away, data).resid), torch.from_numpy(trained.resid))
    with whole.random_twin(5) as twin:
        expected, head = gather(twin, data), unembedding_of(twin, keep=True)
    with away.random_twin(5) as twin:
        found, head_away = gather(twin, data), unembedding_of(twin, keep=True)
    assert abs(found.resid - trained.resid).max() > 0.1
    assert abs(found.resid - expected.resid).max() == 0
    assert torch.equal(head.weight, head_away.weight)
    assert abs(gather(away, data).resid - trained.resid).max() == 0, "undone"


def test_hash_and_lens_of_an_offloaded_model_are_the_models(places):
    whole, away, _ = places
    assert away.weights_hash() == whole.weights_hash()
    rows = torch.randn(3, whole.anatomy.d_model)
    torch.testing.assert_close(unembedding_of(away).logits(rows), unembedding_of(whole).logits(rows))
    assert away.device == torch.device("cpu")


def test_a_worker_lets_the_model_go_before_it_loads_the_backbone(monkeypatch, tmp_path):
    loaded, alive = [], []
    inputs, backbone = stages_inputs.load_inputs, reading.load_backbone

    def load_inputs(config):
        model, data = inputs(config)
        loaded.extend([weakref.ref(model.model), weakref.ref(model.anatomy.embed.weight)])
        return model, data

    def load_backbone(config, device):
        alive.extend(kept() is not None for kept in loaded)
        return backbone(config, device)

    monkeypatch.setattr(stages_inputs, "load_inputs", load_inputs)
    monkeypatch.setattr(reading, "load_backbone", load_backbone)
    job = ReadingJob.of_sweep(SweepConfig(limit=24), str(tmp_path / "run"), "backbone")
    opened = job.open()
    assert alive == [False, False]
    assert opened.shards and opened.compute(opened.shards[0]) == "done"
    assert job.finished() == {opened.shards[0]}


def test_the_backbone_comes_when_the_model_has_been_read(monkeypatch):
    """One model on the device at a time: the model is done before the backbone is loaded, and waits elsewhere."""

    from lvlm_lens.data.registry import load_dataset

    order: list[str] = []
    load, data = reading.load_backbone, load_dataset("mini", limit=24)
    monkeypatch.setattr(reading, "load_backbone", lambda *given: order.append("load") or load(*given))
    monkeypatch.setattr(reading, "off_its_device", lambda module: order.append("away") or contextlib.nullcontext())

    def evidence_of(which, model, samples):
        order.append(which)
        return gather(model, samples)

    found = reading.read_backbone(SweepConfig(folds=2, replicates=100), LVLM.from_pretrained("mini"), data, evidence_of)
    assert order == ["lvlm_in_words", "away", "load", "backbone"]
    assert set(found) == {"items", "name", "lvlm_in_words", "backbone"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second place for weights")
def test_a_model_leaves_its_device_and_comes_back(model):
    model.model.to("cuda")
    before = full_hash(model.model)
    with off_its_device(model.model):
        assert {p.device.type for p in model.model.parameters()} == {"cpu"}
        assert torch.cuda.memory_allocated() < 2**20
    assert {p.device.type for p in model.model.parameters()} == {"cuda"} and full_hash(model.model) == before
    model.model.to("cpu")
