"""Knockout, directions, ablations and attribution against closed forms and hooks written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prompts import make_pairs, tiny, token_difference

from lvlm_lens.causal import (
    ablation_effects,
    attention_knockout,
    attribution_patch,
    block_skipping,
    direction_effects,
    image_noise,
    patch_grid,
)
from lvlm_lens.errors import UsageError


def clean(count: int = 3):
    return [pair.clean for pair in make_pairs(count)]


def test_skipping_a_block_is_running_the_model_without_it() -> None:
    model, data = tiny(), clean(1)
    found = block_skipping(model, data, metric=token_difference)
    assert found.names == ("skip 0", "skip 1", "skip 2", "skip 3")
    layers = model.model.model.language_model.layers
    kept = layers[2]

    class Through(torch.nn.Module):
        def forward(self, hidden_states: torch.Tensor, **options: object) -> torch.Tensor:
            return hidden_states

    layers[2] = Through()
    with torch.no_grad():
        logits = model.model(**model.encode(data).inputs).logits[:, -1]
    layers[2] = kept
    assert np.isclose(found.values[2, 0], float(token_difference(logits)[0]), atol=1e-5)


def test_zero_ablation_of_a_head_is_a_column_block_of_o_proj() -> None:
    model, data = tiny(), clean(2)
    found = ablation_effects(model, data, "blocks.1.attn.hook_z", "zero", heads="each", metric=token_difference)
    assert len(found.names) == 4 and found.names[2].endswith("head 2")
    weight = model.anatomy.blocks[1].self_attn.o_proj.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight[:, 2 * 16 : 3 * 16] = 0
    expected = [float(token_difference(model.logits(model.encode(sample)))[0]) for sample in data]
    with torch.no_grad():
        weight.copy_(before)
    assert np.allclose(found.values[2], expected, atol=1e-5)
    with pytest.raises(UsageError, match="two samples"):
        ablation_effects(model, data[:1], "z", "resample")
    mean = ablation_effects(model, data[:1] * 1, "blocks.1.hook_mlp_out", "mean", "last", metric="kl")
    assert mean.values.shape == (1, 1) and mean.values[0, 0] >= 0


def test_directions_knockout_and_noise() -> None:
    model, data = tiny(), clean(3)
    direction = torch.randn(64, generator=torch.Generator().manual_seed(0))
    found = direction_effects(model, data, direction, 1, (0.0, 2.0), 1, token_difference)
    assert found.names == ("ablate", "add 0", "add 2", "ablate random 0", "add random 0")
    assert np.allclose(found.change[1], 0, atol=1e-5) and np.abs(found.change[2]).min() > 1e-4
    with pytest.raises(UsageError, match="64"):
        direction_effects(model, data, direction[:3], 1)
    knocked = attention_knockout(model, data, [("image", "text")], width=4)
    assert knocked.metric == "answer_probability" and (knocked.baseline > 0).all()
    # text that never sees the picture answers the same whatever the picture shows
    other = [pair.corrupted for pair in make_pairs(3)]
    blind = [attention_knockout(model, x, [("image", "text")], 9, token_difference).values for x in (data, other)]
    assert np.allclose(*blind, atol=1e-5)
    noised = image_noise(model, data, (0.0, 3.0), metric=token_difference)
    assert np.allclose(noised.change[0], 0, atol=1e-5) and np.abs(noised.change[1]).min() > 1e-5
    assert set(noised.summary()["condition"]) == set(noised.names)


def test_attribution_is_exact_where_the_metric_is_linear() -> None:
    """At the last block only the final norm is not linear; a guess for a tiny change equals the patch."""
    model, pairs = tiny(), make_pairs(3)
    grid = patch_grid(model, pairs, "resid_post", "all", token_difference, "denoise", null=0)
    true = np.abs((grid.values[0, 0] - grid.corrupted).mean(-1))  # [block, position]
    for method in ("gradient", "integrated", "atp_star"):
        guess = attribution_patch(model, pairs[:1], "resid_post", "all", token_difference, method, steps=4, top=8)
        assert guess.scores.shape[0] == 4 and guess.rank_correlation_all > 0.6
        assert (guess.verified["chosen"] == "top").sum() == 8
    assert np.nanmax(true) > 0


@pytest.mark.parametrize("site", ["q", "k"])
def test_qk_fix_equals_a_patch_whose_softmax_is_followed_linearly(site: str) -> None:
    """AtP*'s change of a pattern, worked out from few forwards, equals the pattern of a real single patch."""
    from lvlm_lens.activations.sites import Site
    from lvlm_lens.causal.attribution import _pattern_changes, _patterns
    from lvlm_lens.interventions.recording import record

    model, pair = tiny(), make_pairs(1)[0]
    encoded = {side: model.encode(getattr(pair, side)) for side in ("clean", "corrupted")}
    places = [list(range(encoded["clean"].length))]
    kept = [record(model, e, [Site(site, 1)], places, low=None).kept[Site(site, 1)] for e in encoded.values()]
    difference = kept[0] - kept[1]
    attribute = _pattern_changes(model, encoded["corrupted"], [Site(site, 1)], {Site(site, 1): difference})[0]
    seen = Site("pattern", 1)
    before = _patterns(model, encoded["corrupted"], [seen], [])[seen]
    gradient = torch.randn(before.shape, generator=torch.Generator().manual_seed(1))
    guess = attribute(gradient)[0]
    for position in (0, 3, 11, encoded["clean"].length - 1):
        one = torch.zeros_like(difference)
        one[0, position] = difference[0, position]
        after = _patterns(model, encoded["corrupted"], [seen], [(Site(site, 1), lambda v, s, one=one: v + one)])[seen]
        expected = float((gradient * (after - before)).sum())
        assert abs(float(guess[position]) - expected) < 1e-3 * max(1.0, abs(expected)), position
