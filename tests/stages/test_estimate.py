"""What --dry-run says of memory, and models that it must read without their weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from lvlm_lens import LVLM, memory
from lvlm_lens.activations.check_anatomy import ROWS_ON_LOAD, quick_check
from lvlm_lens.cli import main
from lvlm_lens.config import SweepConfig
from lvlm_lens.data import ImageObject, Sample
from lvlm_lens.estimate import _patches, estimate_sweep
from lvlm_lens.machine import clock
from lvlm_lens.measures.refusal_lens import RefusalLens
from lvlm_lens.measures.registry import MEASURES
from lvlm_lens.measures.spec import LensSize, Products
from lvlm_lens.measures.tuned_lens import train_tuned_lens, training_products
from lvlm_lens.measures.unembedding import Unembedding
from lvlm_lens.models.loading import empty_checkpoint
from lvlm_lens.models.tiny import tiny_model
from lvlm_lens.stages.measuring import lens_work, parse_measures

IN_PLACE = {torch.ops.aten.addmm_: lambda total, a, b, **more: 2 * a[0] * a[1] * b[1]}
"""The counter knows a product that is added to its own result only where the result is another tensor."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("estimate") / "qwen"
    model, processor = tiny_model("qwen2_5_vl")
    model.save_pretrained(place)
    processor.save_pretrained(place)
    return place


@pytest.fixture(autouse=True)
def the_same_process(monkeypatch):
    """What Python holds grows from test to test; estimates are compared with each other here."""
    monkeypatch.setattr(memory, "resident_bytes", lambda: 2**29)


def small(**more) -> SweepConfig:
    return SweepConfig(limit=40, pairs=0, defenses=False, measures="angular_gap", **more)


def test_a_processor_that_wants_videos_is_no_obstacle(folder):
    """Qwen-VL's processor needs torchvision for videos; loading does without, and so must the estimate."""
    empty, owner = empty_checkpoint(folder)
    assert all(p.is_meta for p in empty.parameters()) and owner.tokenizer is not None
    found = estimate_sweep(small(model=str(folder), sasa=False, twin=False, dtype="bf16"))
    real = sum(p.numel() for p in LVLM.from_pretrained(folder).model.parameters())
    assert found["parameters"] == real and found["weights_bytes"] == 2 * real


def test_memory_counts_what_the_weights_become():
    whole, packed = (estimate_sweep(small(sasa=False, quantize=q)) for q in (None, "4bit"))
    model = LVLM.from_pretrained("mini").model
    assert whole["weights_bytes"] == sum(p.numel() * p.element_size() for p in model.parameters())
    head = model.get_output_embeddings()
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head)
    assert packed["weights_bytes"] == round(whole["weights_bytes"] - linear * (4 - 0.5625))
    assert packed["peak_bytes"] < whole["peak_bytes"]


def test_memory_grows_with_the_batch_the_twin_and_sasa(folder):
    model = str(folder)  # mini's backbone would need more than its SASA
    base = estimate_sweep(small(model=model, sasa=False, twin=False, batch_size=4))["peak_bytes"]
    assert estimate_sweep(small(model=model, sasa=False, twin=False, batch_size=32))["peak_bytes"] > base
    assert estimate_sweep(small(model=model, sasa=True, twin=False, batch_size=4))["peak_bytes"] > base


def test_both_sweeps_take_twice_the_time_and_the_memory_of_one(tmp_path, capsys):
    words = ["sweep", "--dry-run", "--json", "--limit", "40", "--adapter", str(tmp_path), "--against-base"]
    assert main(words) == 0
    both = json.loads(capsys.readouterr().out)
    one = estimate_sweep(SweepConfig(limit=40))
    assert both["sweeps"] == 2 and both["forwards"] == pytest.approx(2 * one["forwards"], abs=1)
    assert both["peak_bytes"] == pytest.approx(one["peak_bytes"], rel=0.2)


@pytest.mark.parametrize("twin", [False, True])
def test_the_refusal_lens_counts_what_torch_counts(twin):
    """PyTorch's own counter of floating-point operations, two a multiply-add, while both cosines are computed."""
    rng = np.random.default_rng(0)
    states, labels, refusal = rng.standard_normal((12, 3, 16)).astype(np.float32), np.arange(12) % 2, [3, 8]
    counted = 0
    for _ in range(1 + twin):
        head = Unembedding(torch.randn(200, 16), None)
        with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
            for centred in (False, True):
                RefusalLens(head, refusal, centred, replicates=10, permutations=10).fit(states, labels)
        counted += counter.get_total_flops()
    words = (1 + twin) * 2 * states.size * len(refusal)  # h r, which has no width
    size = LensSize(items=12, blocks=3, width=16, vocabulary=200, twin=twin)
    assert MEASURES["refusal_lens"].products(size) == Products(double=counted / 2 - words)


def test_the_tuned_lens_counts_what_torch_counts():
    rows, blocks, width, vocabulary = 100, 3, 8, 50
    states = np.random.default_rng(0).standard_normal((rows, blocks, width)).astype(np.float32)
    with FlopCounterMode(display=False) as counted:
        train_tuned_lens(Unembedding(torch.randn(vocabulary, width), None), states, range(blocks))
    solved = (blocks - 1) * 4 * (4 / 3) * width**3  # four penalties; the counter knows no solve
    said = training_products(rows, blocks, width, vocabulary)
    assert said.single + said.double - solved == pytest.approx(counted.get_total_flops() / 2, rel=1e-9)


def test_the_measures_line_holds_the_head_squared():
    """At the width of LLaVA-1.5-7B the head's product with itself is a multiply-add of 5e11, twice with the twin."""
    size = LensSize(items=24, blocks=2, width=4096, vocabulary=32064, twin=True)
    work = lens_work(parse_measures("default"), size)
    assert work.products == 0 and work.products_double == pytest.approx(2 * 32064 * 4096**2, rel=0.01)


def test_against_base_needs_an_adapter(capsys):
    assert main(["sweep", "--against-base"]) == 2
    assert "--adapter DIR" in capsys.readouterr().err


def test_the_clock_runs_with_the_process_on_one_thread():
    import time

    before = clock()
    time.sleep(0.2)
    waited = clock() - before
    assert (waited < 0.1) == (torch.get_num_threads() == 1)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "llama"])
def test_the_check_on_load_is_counted(family):
    model = LVLM(*tiny_model(family))
    rows = []

    def count(module, args, kwargs):
        rows.append((args[0] if args else kwargs["hidden_states"]).shape[0])

    for block in model.anatomy.blocks:
        block.register_forward_pre_hook(count, with_kwargs=True)
    quick_check(model)
    assert ROWS_ON_LOAD[model.takes_images] == pytest.approx(sum(rows) / model.n_blocks, abs=1)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "smolvlm"])
def test_patches_are_those_that_the_tower_reads(family):
    """Rows that go into the tower's first block; SmolVLM's picture is several tiles."""
    model = LVLM(*tiny_model(family))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    encoded = model.encode(Sample("a", "Is it safe?", (ImageObject(Image.fromarray(pixels)),)))
    seen = []
    block = model.anatomy.vision_blocks[0]
    block.register_forward_pre_hook(lambda _, args, more: seen.append(args or tuple(more.values())), with_kwargs=True)
    model.logits(encoded)
    read = sum(given[0].numel() / given[0].shape[-1] for given in seen)
    assert 0.8 < _patches(model.model, encoded.inputs) / read <= 1, "a class token is no patch"
