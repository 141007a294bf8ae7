"""Measures that edit the forward: each against the same thing done by hand on a plain Hugging Face model."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from prompts import make_pairs, tiny

from lvlm_lens import LVLM
from lvlm_lens.activations import capture
from lvlm_lens.causal.head_scan import scan_heads
from lvlm_lens.causal.knockout import attention_knockout
from lvlm_lens.causal.refusal_direction import after_instruction, candidate_directions, select_refusal_direction
from lvlm_lens.causal.scaled_blocks import scaled_blocks, sharpen_range
from lvlm_lens.errors import DataError, UsageError
from lvlm_lens.interventions import rerun
from lvlm_lens.measures.check_measure import check_measure
from lvlm_lens.measures.mean_effect import MeanEffect
from lvlm_lens.models.refusal_tokens import refusal_log_odds, refusal_token_ids
from lvlm_lens.models.tiny import tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny()


def members(count: int):
    pairs = make_pairs(count)
    return [pair.clean for pair in pairs], [pair.corrupted for pair in pairs]


def plain(model, sample) -> torch.Tensor:
    """Last-token logits of a plain forward of the Hugging Face model."""
    with torch.no_grad():
        return model.model(**model.encode(sample).inputs).logits[0, -1].float()


def test_mean_effect_passes_the_battery():
    effects = np.random.default_rng(0).standard_normal((60, 4, 1))
    effects[:, 2:] += 2
    check_measure(
        partial(MeanEffect, replicates=100, permutations=60), effects, None, np.arange(60) // 2, 2, labelled=False
    )
    fitted = MeanEffect(replicates=100).fit(effects)
    np.testing.assert_allclose(fitted.curve_.value, effects[:, :, 0].mean(0))
    with pytest.raises(UsageError, match="groups"):
        MeanEffect().fit(effects, None, [1, 2])


def test_head_scan_equals_o_proj_columns_set_to_zero(model):
    data = members(2)[0]
    scan = scan_heads(model, data, [1, 3])
    layer = model.anatomy.blocks[3].self_attn.o_proj
    before, dim = layer.weight.detach().clone(), model.anatomy.head_dim
    for row, sample in enumerate(data):
        base = plain(model, sample).log_softmax(-1)
        with torch.no_grad():
            layer.weight[:, 2 * dim : 3 * dim] = 0
            other = plain(model, sample).log_softmax(-1)
            layer.weight.copy_(before)
        kl = float((base.exp() * (base - other)).sum())
        assert scan.kl[row, 1, 2] == pytest.approx(kl, abs=1e-5)
        states = model.model.model(**model.encode(sample).inputs, output_hidden_states=True).hidden_states
        normed = model.anatomy.norm(torch.from_numpy(scan.states[row]))
        torch.testing.assert_close(normed, states[-1][0, -1], atol=1e-4, rtol=1e-4)
    assert scan.ablated.shape == (2, model.anatomy.n_heads, 2, 64) and scan.reason is None


def test_heads_of_a_family_that_adds_between_blocks_are_resumed(monkeypatch):
    """DeepStack adds to the residual between blocks: recorded and added again, so runs begun at a block are right."""
    model = LVLM(*tiny_model("qwen3_vl"))
    data = members(2)[0]
    scan = scan_heads(model, data, [0, 2])
    assert scan.reason is None
    monkeypatch.setattr(rerun, "allowed", lambda *_: -1.0)
    whole = scan_heads(model, data, [0, 2])
    assert "differs from the whole" in whole.reason
    np.testing.assert_allclose(scan.kl, whole.kl, atol=1e-5)


def test_scaled_blocks_equal_scaled_weights_and_leave_nothing(model):
    sample = members(1)[0][0]
    untouched = plain(model, sample)
    with scaled_blocks(model, [1, 2], 1.3):
        hooked = plain(model, sample)
    torch.testing.assert_close(plain(model, sample), untouched)
    names = [
        parameter
        for block in (1, 2)
        for name, parameter in model.anatomy.blocks[block].named_parameters()
        if name.endswith("proj.weight")
    ]
    assert len(names) == 14  # q, k, v, o, up, gate, down of two blocks
    with torch.no_grad():
        for parameter in names:
            parameter.mul_(1.3)
        scaled = plain(model, sample)
        for parameter in names:
            parameter.div_(1.3)
    torch.testing.assert_close(hooked, scaled, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(scaled, untouched, atol=1e-4)


def test_sharpening_finds_the_best_of_the_ranges_it_may_try(model):
    data = members(4)[1]
    found = sharpen_range(model, data, (1, 3), factor=1.5)
    ids = refusal_token_ids(model)

    def by_hand(start: int, stop: int) -> np.ndarray:
        with scaled_blocks(model, range(start, stop), 1.5):
            return np.array([float(refusal_log_odds(plain(model, s), ids)) for s in data])

    key = lambda odds: (int((odds > 0).sum()), float(odds.mean()))  # noqa: E731
    stop = max(range(2, 5), key=lambda j: key(by_hand(1, j)))
    start = max(range(stop), key=lambda i: key(by_hand(i, stop)))
    assert (found.start, found.stop) == (start, stop)
    gained = by_hand(1, 3) - by_hand(1, 1)
    np.testing.assert_allclose(found.moved[:, 2], gained, atol=1e-4)
    assert np.isnan(found.moved[:, 0]).all() and found.n == 4
    with pytest.raises(UsageError, match="start < stop"):
        sharpen_range(model, data, (3, 3))


def test_refusal_direction_is_the_mean_difference_and_the_rule_is_kept(model):
    harmful, harmless = members(8)
    directions = candidate_directions(model, harmful[:4], harmless[:4], 2)

    def states(sample) -> torch.Tensor:
        with torch.no_grad():
            found = model.model.model(**model.encode(sample).inputs, output_hidden_states=True).hidden_states
        return torch.stack(found)[:, 0].double()  # [L + 1, position, d]; the last one is after the final norm

    means = [torch.stack([states(s)[:-1, -2] for s in part]).mean(0) for part in (harmful[:4], harmless[:4])]
    torch.testing.assert_close(directions[1, :-1], (means[0] - means[1]).float(), atol=1e-4, rtol=1e-3)
    found = select_refusal_direction(model, (harmful[:4], harmless[:4]), (harmful[4:], harmless[4:]), 2)
    assert {(row["position"], row["source_block"]) for row in found.candidates} == {
        (p, b)
        for p in (-1, -2)
        for b in range(1, 4)  # at block 0 the template's tokens are the same in every prompt
    }
    assert (found.effects[:, 0] == 0).all() and 3 < 0.8 * 4
    for row in found.candidates:
        assert row["passes"] == (row["kl"] <= 0.1 and row["steering"] >= 0)
    passing = [row for row in found.candidates if row["passes"]]
    assert found.chosen == (min(passing, key=lambda row: row["ablation"]) if passing else None)
    # the ablation by hand: take the direction out of the input and of all that blocks write, at every position
    ids, unit = refusal_token_ids(model), directions[0, 2] / directions[0, 2].norm()
    out = lambda x: x - (x @ unit)[..., None] * unit  # noqa: E731

    def after(module, args, output):
        return (out(output[0]), *output[1:]) if isinstance(output, tuple) else out(output)

    def before(module, args, kwargs):
        return (out(args[0]), *args[1:]), kwargs

    hooks = []
    for block in model.anatomy.blocks:
        hooks.append(block.register_forward_pre_hook(before, with_kwargs=True))
        hooks += [part.register_forward_hook(after) for part in (block.self_attn, block.mlp)]
    ablated = [float(refusal_log_odds(plain(model, s), ids)) for s in harmful[4:]]
    for hook in hooks:
        hook.remove()
    untouched = [float(refusal_log_odds(plain(model, s), ids)) for s in harmful[4:]]
    np.testing.assert_allclose(found.effects[:, 2], np.subtract(untouched, ablated), atol=1e-3)
    assert found.random.shape == (4, 3) and np.isfinite(found.effects).all()
    with pytest.raises(DataError, match="harmless"):
        select_refusal_direction(model, (harmful, []), (harmful, harmless))


def test_positions_after_the_instruction_are_counted(model):
    sample = members(1)[0][0]
    count = after_instruction(model, sample)
    encoded = model.encode(sample)
    ids = encoded.inputs["input_ids"][0].tolist()
    assert count == encoded.layouts[0].last - encoded.layouts[0].question[-1]
    assert sample.text.split()[-1].strip("?") in model.tokenizer.decode(ids[:-count])


def test_knockout_of_chosen_centres_is_part_of_the_whole(model):
    data = members(3)[0]
    whole = attention_knockout(model, data, [("image", "question")], 2)
    part = attention_knockout(model, data, [("image", "question")], 2, centres=[2])
    np.testing.assert_allclose(part.values[0], whole.values[2], atol=1e-6)
    kept = capture(model, data, "resid_post", "last")
    assert kept["resid_post"].shape[1] == model.n_blocks  # no hook was left behind
