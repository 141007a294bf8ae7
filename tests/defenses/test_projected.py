"""SASA's projected network as a model of its own, and patch grids before and after the projection."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from prompts import picture

from lvlm_lens import LVLM
from lvlm_lens.activations import Site, attached, tap
from lvlm_lens.causal import patch_grid
from lvlm_lens.data import Pair, Sample
from lvlm_lens.data.registry import load_dataset
from lvlm_lens.defenses.projection import Cell, edit
from lvlm_lens.defenses.sasa_patching import deciding_pairs, patching_report, projected
from lvlm_lens.errors import UsageError
from lvlm_lens.interventions.recording import record
from lvlm_lens.interventions.rerun import whole
from lvlm_lens.models.tiny import tiny_model
from lvlm_lens.plots.sasa import plot_patching_change


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl"])
def model(request: pytest.FixtureRequest) -> LVLM:
    return LVLM(*tiny_model(request.param))


SAMPLES = [Sample(f"s{i}", "Can my toddler play with this?", (picture(i),), group=f"g{i // 2}") for i in range(4)]


def test_a_projected_forward_is_the_second_pass(model: LVLM) -> None:
    cell = Cell(0, 1)
    encoded = model.encode(SAMPLES)
    first = record(model, encoded, keys=False)
    expected = whole(model, first, encoded, 0, edit(first, encoded, cell).hidden).logits
    with projected(model, cell) as view:
        found = view.logits(view.encode(SAMPLES))
    assert torch.allclose(found, expected, atol=1e-6)
    assert float((found - first.logits).abs().max()) > 1e-4, "the projection changed nothing"
    assert torch.equal(model.logits(encoded), first.logits), "outside the context the model is itself again"


def test_a_patch_acts_in_both_passes(model: LVLM) -> None:
    """Below the safety block a patch reaches the answer through both projected states; by hand, from the definition."""
    cell, site = Cell(1, 2) if model.n_blocks > 2 else Cell(0, 1), Site("resid_post", 0)
    pair = Pair(SAMPLES[0], SAMPLES[1])
    with projected(model, cell) as view:
        grid = patch_grid(view, [pair], "resid_post", "last", _first_logit, "denoise", null=0, verify=0, exact="full")
    encoded = model.encode([pair.clean])
    clean = record(model, encoded, keys=False)
    below = clean.left[0] if cell.safety else edit(clean, encoded, cell).hidden  # what stands after block 0 in pass 2
    donor = clean.at_last(below)[0]
    encoded = model.encode([pair.corrupted])
    last = encoded.layouts[0].last

    def write(value: torch.Tensor, where: Site) -> torch.Tensor:
        value = value.clone()
        value[0, last] = donor
        return value

    with attached([(site, tap(site, model.anatomy), write)]):
        first = record(model, encoded, keys=False)
    hidden = edit(first, encoded, cell).hidden
    hooks = [(Site("resid_post", cell.safety), lambda value, where: hidden)]
    hooks = [*hooks, (site, write)] if cell.safety == 0 else [(site, write), *hooks]
    with attached([(s, tap(s, model.anatomy), function) for s, function in hooks]):
        expected = model.logits(encoded)
    assert np.isclose(grid.values[0, 0, 0, 0, 0], _first_logit(expected)[0], atol=1e-5)


def _first_logit(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 7] - logits[:, 11]


def test_inputs_of_another_model_are_refused(model: LVLM) -> None:
    encoded = model.encode(SAMPLES[:1])
    with pytest.raises(UsageError, match="projected view"), projected(model, Cell(0, 1)):
        model.logits(encoded)
    with projected(model, Cell(0, 1)) as view:
        view.logits(view.encode(SAMPLES[1:2]))
        with pytest.raises(UsageError, match="projected view"):
            model.logits(encoded)  # of the same shape: the state of another batch would have been put in


def test_grids_before_and_after_on_the_embedded_model() -> None:
    model, data = LVLM.from_pretrained("mini"), load_dataset("mini")
    samples = [sample for sample in data if sample.split == "test"][:60]
    pairs = deciding_pairs(model, samples, 32, 5)
    assert pairs and all(pair.swap == "image" for pair in pairs)
    summary, grids = patching_report(model, samples, Cell(1, 4), most=4)
    assert summary["done"] and grids["plain"].engine == "resumed" and grids["projected"].engine == "full"
    same, _ = patching_report(model, samples, replace(Cell(2, 2), projection="onto_safety"), most=4)
    for cell in same["cells"]:  # a block projected on itself is itself: nothing may change
        assert abs(cell["difference"]) < 1e-3, cell
    assert any(abs(cell["difference"]) > 1e-3 for cell in summary["cells"])
    assert plot_patching_change(summary, model.n_blocks).axes
    few, none = patching_report(model, samples[:2], Cell(1, 4))
    assert not few["done"] and "pairs" in few["reason"] and not none
