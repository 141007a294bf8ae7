"""Edits, knockout and patterns against plain forwards and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prompts import picture

from lvlm_lens import LVLM
from lvlm_lens.activations import attached, capture, tap
from lvlm_lens.activations.capture import eager_blocks, edited_logits, gather_positions
from lvlm_lens.activations.sites import Site
from lvlm_lens.data import Sample
from lvlm_lens.errors import ModelError, SiteError, UsageError
from lvlm_lens.interventions import edit
from lvlm_lens.models import Positions
from lvlm_lens.models.tiny import tiny_model


@pytest.fixture(scope="module")
def llava():
    return LVLM(*tiny_model("llava"))


@pytest.fixture(scope="module")
def samples():
    texts = ["Can my toddler play with this?", "Is it safe", "What is in the picture? Please tell me."]
    return [Sample(f"s{i}", text, (picture(i, (40, 30)),)) for i, text in enumerate(texts)]


def edit_hooks(model, edits):
    return attached([(site, tap(site, model.anatomy), function) for site, function in edits])


def read(model, encoded, site, edits=()):
    kept = []
    with torch.inference_mode(), edit_hooks(model, [*edits, (site, lambda value, _: kept.append(value.clone()))]):
        model.model(**model.forward_inputs(encoded), use_cache=False)
    return kept[0]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("count", [1, 3])
def test_pattern_equals_a_full_eager_forward_at_every_position(llava, samples, side, count):
    encoded = llava.encode(samples[:count], padding_side=side)
    with torch.inference_mode(), llava.attention("eager"):
        full = llava.model(**llava.forward_inputs(encoded), output_attentions=True, use_cache=False).attentions
    before = llava.logits(encoded)
    for block in range(llava.n_blocks):
        with eager_blocks(llava, [block]):
            pattern = read(llava, encoded, Site("pattern", block))
        for row, layout in enumerate(encoded.layouts):
            real = list(layout.attended)
            torch.testing.assert_close(pattern[row][:, real], full[block][row][:, real], atol=1e-6, rtol=1e-5)
            later = torch.ones(encoded.length, encoded.length, dtype=torch.bool).triu(1)
            assert pattern[row][:, later].max() == 0 or real[0] > 0  # padded queries of a left-padded row look anywhere
    torch.testing.assert_close(llava.logits(encoded), before, rtol=0, atol=0)  # the kernel is put back


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("count", [1, 3])
def test_knockout_blocks_exactly_and_rows_sum_to_one(llava, samples, kernel, side, count):
    encoded = llava.encode(samples[:count], padding_side=side)
    blocked = edit.knockout(encoded, [1, 2], [("image", "question"), ("all", "last")])
    plain = llava.logits(encoded)
    with llava.attention(kernel):
        changed = edited_logits(llava, encoded, blocked)
        with eager_blocks(llava, [2]):
            pattern = read(llava, encoded, Site("pattern", 2), blocked)  # [batch, heads, query, key]
    assert (changed - plain).abs().max() > 1e-3
    for row, layout in enumerate(encoded.layouts):
        question, image = list(layout.question), list(layout.part("image"))
        assert pattern[row][:, question][:, :, image].max() == 0
        assert (pattern[row][:, layout.last, layout.last] == 1).all()  # its own token is all that is left
        sums = pattern[row][:, list(layout.attended)].sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums))


def test_knockout_agrees_between_kernels_and_with_a_hand_made_float_mask(llava, samples):
    encoded = llava.encode(samples)
    blocked = edit.knockout(encoded, range(llava.n_blocks), [("image", "question")])
    ours = edited_logits(llava, encoded, blocked)
    mask = encoded.inputs["attention_mask"].bool()
    length = encoded.length
    seen = torch.ones(length, length, dtype=torch.bool).tril() & mask[:, None, :]
    for row, layout in enumerate(encoded.layouts):
        for query in layout.question:
            seen[row, query, list(layout.part("image"))] = False
    made = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
    with torch.inference_mode():
        embeds = read(llava, encoded, Site("embed"))
        inputs = llava.forward_inputs(encoded)
        out = llava.anatomy.decoder(
            inputs_embeds=embeds, attention_mask=made, position_ids=inputs["position_ids"], use_cache=False
        )
        theirs = llava.anatomy.head(out.last_hidden_state[:, -1])
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


def test_projections_scale_and_add_are_the_closed_forms(llava, samples):
    encoded = llava.encode(samples)
    index, _ = gather_positions(encoded, Positions.parse("question"))
    site = Site("resid_post", 1)
    plain = read(llava, encoded, site)
    direction = torch.randn(64, generator=torch.Generator().manual_seed(1))
    unit = direction / direction.norm()
    other = torch.randn(2, 64, generator=torch.Generator().manual_seed(2))
    basis = torch.linalg.qr(other.T).Q
    cases = {
        "out": (edit.project_out(direction, index), lambda x: x - (x @ unit)[:, None] * unit),
        "out of two": (edit.project_out(other, index), lambda x: x - x @ basis @ basis.T),
        "add": (edit.add(direction, index, strength=-2.0), lambda x: x - 2 * direction),
        "scale": (edit.scale(0.0, index), lambda x: x * 0),
        "mean": (edit.mean_ablate(direction, index), lambda x: direction.expand_as(x)),
    }
    for name, (function, closed) in cases.items():
        new = read(llava, encoded, site, [(site, function)])
        for row, layout in enumerate(encoded.layouts):
            question = list(layout.question)
            rest = [i for i in range(layout.length) if i not in question]
            torch.testing.assert_close(new[row][question], closed(plain[row][question]), atol=1e-5, rtol=1e-5, msg=name)
            torch.testing.assert_close(new[row][rest], plain[row][rest], rtol=0, atol=0)


def test_replace_with_ragged_positions_and_resample(llava, samples):
    encoded = llava.encode(samples)
    index, valid = gather_positions(encoded, Positions.parse("question"))
    assert not valid.all()  # short questions repeat their last index; what stands there must not be written
    new = torch.randn(*index.shape, 64)
    site = Site("resid_pre", 2)
    written = read(llava, encoded, site, [(site, edit.replace(new, index))])
    for row, layout in enumerate(encoded.layouts):
        count = len(layout.question)
        torch.testing.assert_close(written[row][list(layout.question)], new[row, :count], rtol=0, atol=0)
    last, _ = gather_positions(encoded, Positions.parse("last"))
    plain = read(llava, encoded, site)
    swapped = read(llava, encoded, site, [(site, edit.resample([1, 2, 0], last))])
    torch.testing.assert_close(swapped[:, -1], plain[[1, 2, 0], -1], rtol=0, atol=0)


def test_head_edits_touch_only_their_heads(llava, samples):
    encoded = llava.encode(samples)
    site = Site("z", 1)
    plain = read(llava, encoded, site)
    cut = read(llava, encoded, site, [(site, edit.scale(0.0, heads=[2]))])
    assert cut[:, :, 2].abs().max() == 0
    torch.testing.assert_close(cut[:, :, [0, 1, 3]], plain[:, :, [0, 1, 3]], rtol=0, atol=0)
    with pytest.raises(SiteError, match="no heads"):
        read(llava, encoded, Site("resid_post", 1), [(Site("resid_post", 1), edit.scale(0.0, heads=[0]))])


def test_weights_without_a_direction_equal_activations_without_it(llava, samples):
    encoded = llava.encode(samples)
    direction = torch.randn(64, generator=torch.Generator().manual_seed(3))
    before = {name: value.clone() for name, value in llava.model.state_dict().items()}
    by_hooks = edited_logits(llava, encoded, edit.ablate_everywhere(llava, direction))
    with edit.ablated_weights(llava, direction):
        by_weights = llava.logits(encoded)
        along = read(llava, encoded, Site("resid_post", 3)) @ (direction / direction.norm())
    assert along.abs().max() < 1e-4
    torch.testing.assert_close(by_weights, by_hooks, atol=1e-4, rtol=1e-4)
    assert (by_weights - llava.logits(encoded)).abs().max() > 1e-2
    assert all(torch.equal(before[name], value) for name, value in llava.model.state_dict().items())


def test_bad_edits_are_refused(llava, samples):
    encoded = llava.encode(samples)
    with pytest.raises(UsageError, match="not zero"):
        edit.project_out(torch.zeros(64))
    with pytest.raises(UsageError, match="empty"):
        edit.window(3, 0, 4)
    with pytest.raises(SiteError, match="shape"):
        edited_logits(llava, encoded, [(Site("resid_post", 1), lambda value, _: value[:, 1:])])
    assert list(edit.window(0, 3, 4)) == [0, 1] and list(edit.window(2, 1, 4)) == [2]
    captured = capture(llava, samples, "resid_post", "last", edits=[(Site("resid_post", 1), edit.scale(0.0))])
    assert np.abs(captured["resid_post", 1]).max() == 0
    tied = LVLM(*tiny_model("llama"))
    tied.model.lm_head.weight = tied.model.model.embed_tokens.weight
    with (
        pytest.raises(ModelError, match="ties"),
        edit.ablated_weights(LVLM(tied.model, tied.tokenizer), torch.ones(64)),
    ):
        pass
