"""The same weights read by TransformerLens, by nnsight and by this toolkit give the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prompts import picture

from lvlm_lens import LVLM
from lvlm_lens.activations import capture
from lvlm_lens.activations.traced import capture_with_nnsight
from lvlm_lens.data import Sample
from lvlm_lens.errors import ModelError, SiteError
from lvlm_lens.models.tiny import tiny_model

MODELS = {}
PER_SITE = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "q", "k", "v", "z", "pattern")


def model(family):
    if family not in MODELS:
        MODELS[family] = LVLM(*tiny_model(family))
    return MODELS[family]


def samples(lvlm):
    words = ["Can my toddler play with this?", "Is it safe"]
    return [Sample(f"s{i}", text, (picture(i),) if lvlm.takes_images else ()) for i, text in enumerate(words)]


@pytest.mark.parametrize(
    "family", ["llama", "qwen2", "qwen3", "mistral", "gemma3_text", "llava", "llava_next", "gemma3"]
)
def test_transformer_lens_agrees_site_by_site(family):
    lvlm = model(family)
    encoded = lvlm.encode(samples(lvlm)[:1])
    bridge = lvlm.to_transformer_lens()
    inputs = {key: value for key, value in lvlm.forward_inputs(encoded).items() if key != "position_ids"}
    with torch.inference_mode():
        theirs_logits, theirs = bridge.run_with_cache(inputs.pop("input_ids"), **inputs)
    logits, ours = lvlm.run_with_cache(encoded)
    torch.testing.assert_close(logits, theirs_logits, atol=1e-4, rtol=1e-4)
    compared = 0
    for name, value in ours.items():
        site = name.rpartition("hook_")[2]
        if site in PER_SITE and name in theirs:
            torch.testing.assert_close(value, theirs[name].reshape(value.shape), atol=1e-4, rtol=1e-4, msg=name)
            compared += 1
    assert compared >= 8 * lvlm.n_blocks


def test_cache_converts_to_activation_cache():
    lvlm = model("llama")
    _, cache = lvlm.run_with_cache(samples(lvlm)[:1])
    theirs = cache.to_activation_cache(lvlm.to_transformer_lens())
    assert torch.equal(theirs["resid_post", 2], cache["resid_post", 2])
    stack, labels = theirs.accumulated_resid(layer=-1, return_labels=True)
    assert labels[0].startswith("0") and torch.equal(stack[1], cache["resid_pre", 1])
    decomposed = theirs.decompose_resid(layer=lvlm.n_blocks, mode="all", incl_embeds=True)
    torch.testing.assert_close(decomposed.sum(0), cache["resid_post", -1], atol=1e-4, rtol=1e-4)


def test_a_family_transformer_lens_does_not_have_is_refused():
    with pytest.raises(ModelError, match="TransformerLens cannot take family 'chameleon'"):
        model("chameleon").to_transformer_lens()


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3", "llama", "aya_vision"])
def test_nnsight_captures_the_same(family):
    lvlm = model(family)
    sites = ["embed", "resid_pre", "q", "v", "z", "attn_out", "mlp_out", "resid_post", "final_norm"]
    options = {"positions": "question[-3:] | last", "logits": True}
    before = lvlm.logits(lvlm.encode(samples(lvlm)))
    theirs = capture_with_nnsight(lvlm, samples(lvlm), sites, **options)
    ours = capture(lvlm, samples(lvlm), sites, **options)
    assert set(theirs.sites) == set(ours.sites)
    for site in ours.sites:
        np.testing.assert_allclose(theirs[site], ours[site], atol=1e-5, rtol=1e-5, err_msg=str(site))
    np.testing.assert_allclose(theirs.logits, ours.logits, atol=1e-5, rtol=1e-5)
    assert torch.equal(lvlm.logits(lvlm.encode(samples(lvlm))), before)  # the model itself is untouched


def test_nnsight_patterns_and_flat_rows():
    lvlm = model("llava")
    ours = capture(lvlm, samples(lvlm), ["pattern", "resid_mid"], "last")
    theirs = capture_with_nnsight(lvlm, samples(lvlm), ["pattern", "resid_mid"], "last")
    for site in ours.sites:
        np.testing.assert_allclose(theirs[site], ours[site], atol=1e-5, rtol=1e-5, err_msg=str(site))
    with pytest.raises(SiteError, match="rows without a batch axis"):
        capture_with_nnsight(model("blip-2"), samples(model("blip-2")), "mlp_out", "last")


def test_nnsight_model_can_be_traced_by_hand():
    lvlm = model("llava")
    encoded = lvlm.encode(samples(lvlm)[:1])
    traced = lvlm.to_nnsight()
    kept = None
    with torch.inference_mode(), traced.trace(**lvlm.forward_inputs(encoded)):
        kept = traced.model.language_model.layers[1].output.save()
    ours = capture(lvlm, samples(lvlm)[:1], "blocks.1.hook_resid_post", "all")
    np.testing.assert_allclose(kept[0], ours["resid_post", 1][0], atol=1e-6)
