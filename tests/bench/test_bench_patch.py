"""The patch benchmark on a very small model: right numbers everywhere, honest counts, a readable table."""

from __future__ import annotations

import pytest
import torch

from lvlm_lens.bench.llava_shape import llava_shape
from lvlm_lens.bench.measure import cost
from lvlm_lens.bench.patch import PlainHooks, _task, arithmetic_minimum, patch_table, tower_flops
from lvlm_lens.bench.peers import NNsight, TransformerLens


@pytest.fixture(scope="module")
def model():
    return llava_shape(blocks=3, width=64, image_tokens=16)


@pytest.mark.parametrize("sweep", ["A", "B", "C"])
def test_ours_and_peers_agree_on_every_place(model, sweep: str) -> None:
    task = _task(model, sweep)
    ours = task.ours()
    assert len(ours) == len(task.places) == {"A": 6, "B": 48, "C": 6}[sweep]
    for make in (PlainHooks, NNsight, TransformerLens):
        peer = make(model, task.encoded)
        peer.prepare()
        for index in (0, len(ours) // 2, len(ours) - 1):
            assert torch.allclose(ours[index], peer.cell(*task.places[index]), atol=1e-5), (peer.name, index)


def test_minimum_counts_what_an_exact_method_needs(model) -> None:
    """Two forwards that share their first words; the last block's cells need nothing, and each lower block adds one
    block, the first of them without its queries, keys and values."""
    one = _task(model, "A", both=False)
    tower = sum(tower_flops(model, encoded) for encoded in one.encoded.values())
    length, width, hidden = one.encoded["clean"].length, 64, 64 * 43 // 16
    linear, kv, head = 2 * (4 * width**2 + 3 * width * hidden), 2 * 2 * width**2, 2 * 64 * model.anatomy.vocab_size
    seen, last = 4 * width * sum(range(1, length + 1)), 4 * width * length
    base = 2 * (2 * (length * linear + seen) + length * kv + linear - kv + last + head)
    start = one.encoded["clean"].layouts[0].images[0][0]
    shared = 2 * (start * linear + 4 * width * sum(range(1, start + 1))) + start * kv
    qkv = 3 * 2 * width**2
    expected = tower + base - shared + 2 * head + 2 * (linear - qkv + last) + linear + last
    assert arithmetic_minimum(one) == expected


@pytest.mark.parametrize("sweep", ["A", "B", "C"])
def test_counted_work_is_never_below_the_minimum(model, sweep: str) -> None:
    task = _task(model, sweep)
    assert cost(task.ours).flops >= arithmetic_minimum(task)


def test_attention_and_memory_are_counted() -> None:
    states = torch.randn(8, 4, 512, 32)
    found = cost(lambda: torch.nn.functional.scaled_dot_product_attention(states, states, states, is_causal=True))
    assert found.flops == 2 * 2 * (8 * 4 * 512 * 512 * 32)  # two products of [512, 32] with [32, 512]
    assert found.peak_bytes is None or found.peak_bytes >= states.numel() * 4  # the output at least


def test_a_picture_that_is_replaced_as_a_whole_is_not_run_again(model) -> None:
    task = _task(model, "C")
    whole = cost(task.ours).flops
    task.columns = [task.columns[0][1:]]  # a token of the picture stays: nothing can be taken over
    assert cost(task.ours).flops > whole


def test_table_prints_every_row() -> None:
    tool = {"seconds": 2.0, "cells_per_second": 3.0, "times_ours": 4.0, "max_abs_diff": 0.0, "cells_timed": 2}
    ours = {"seconds": 0.5, "cells_per_second": 12.0, "flops": 10**9, "flops_over_minimum": 1.1, "launches": 5,
            "peak_bytes": None, "max_abs_diff": 1e-6}  # fmt: skip
    row = {"sweep": "A", "what": "last token", "cells": 6, "ours": ours, "minimum_flops": 10**9,
           "peers": {"plain hooks": tool}, "best_peer": "plain hooks", "speedup": 4.0, "target": 2.1,
           "peer_cell": {"flops": 1, "launches": 1, "peak_bytes": None, "flops_of_sweep": 8}}  # fmt: skip
    text = patch_table({"model": "m", "blocks": 3, "width": 64, "image_tokens": 16, "device": "cpu",
                        "dtype": "float32", "threads": 1, "directions": 2, "sweeps": [row]})  # fmt: skip
    assert "target 2.1: met" in text and "lvlm-lens" in text and "plain hooks" in text
