"""Names of sites, reductions before copying, and TransformerLens' two verbs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lvlm_lens import LVLM
from lvlm_lens.activations import Site, all_sites, attached, capture, expand_sites, tap
from lvlm_lens.data import ImageObject, Sample
from lvlm_lens.errors import SiteError, UsageError
from lvlm_lens.models.tiny import tiny_model


@pytest.fixture(scope="module")
def llava():
    return LVLM(*tiny_model("llava"))


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    pictures = [ImageObject(Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))) for _ in range(3)]
    texts = ["Can my toddler play with this?", "Is it safe", "What is in the picture? Please tell me."]
    return [Sample(f"s{i}", text, (image,)) for i, (text, image) in enumerate(zip(texts, pictures, strict=True))]


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("blocks.2.hook_resid_post", [Site("resid_post", 2)]),
        ("blocks.-1.attn.hook_z", [Site("z", 3)]),
        ("resid_mid", [Site("resid_mid", block) for block in range(4)]),
        ("blocks.*.hook_mlp_out", [Site("mlp_out", block) for block in range(4)]),
        ("blocks.[02].attn.hook_q*", None),
        ("blocks.1.attn.hook_?", [Site(name, 1) for name in "qkvz"]),
        ("model.language_model.layers.3", [Site("resid_post", 3)]),
        ("model.language_model.layers.-2.self_attn.k_proj", [Site("k", 2)]),
        ("model.language_model.layers.1.mlp", [Site("mlp_out", 1)]),
        ("vision.blocks.-1.hook_resid_post", [Site("vision_resid_post", 1)]),
        (["embed", "logits", "final_norm", "image_features"], None),
        (["resid_post", "blocks.1.hook_resid_post"], [Site("resid_post", block) for block in range(4)]),
    ],
)
def test_specifications_mean_sites(llava, spec, found):
    sites = expand_sites(spec, llava.anatomy)
    if found is not None:
        assert sites == found
    assert all(Site.parse(str(site)) == site for site in sites)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resid_pst", "did you mean resid_p"),
        ("blocks.4.hook_resid_post", "blocks are 0 to 3"),
        ("blocks.*.hook_nothing", "matches none"),
        ("vision.blocks.7.hook_resid_post", "blocks are 0 to 1"),
        ([], "no sites"),
    ],
)
def test_specifications_that_mean_nothing_are_refused(llava, spec, message):
    with pytest.raises(SiteError, match=message):
        expand_sites(spec, llava.anatomy)


def test_every_site_can_be_captured_and_is_what_the_module_returns(llava, samples):
    encoded = llava.encode(samples[:1])
    wanted = [site for site in all_sites(llava.anatomy) if site.name not in ("pattern", "logits")]
    acts = capture(llava, samples[:1], wanted, "all")
    seen = {}
    block = llava.anatomy.blocks[2]
    for name, module in (("q", block.self_attn.q_proj), ("mlp_out", block.mlp), ("attn_out", block.self_attn)):
        module.register_forward_hook(
            lambda _, __, output, name=name: seen.update({name: output[0] if isinstance(output, tuple) else output})
        )
    with torch.inference_mode():
        out = llava.model(**encoded.inputs, output_hidden_states=True)
        features = llava.model.get_image_features(encoded.inputs["pixel_values"]).pooler_output
    for hooked in (block.self_attn.q_proj, block.mlp, block.self_attn):
        hooked._forward_hooks.clear()
    assert np.array_equal(acts["resid_post", 1][0], out.hidden_states[2][0])
    assert np.array_equal(acts["final_norm"][0], out.hidden_states[4][0])
    np.testing.assert_allclose(acts["q", 2][0].reshape(encoded.length, -1), seen["q"][0], atol=1e-6)
    np.testing.assert_allclose(acts["mlp_out", 2][0], seen["mlp_out"][0], atol=1e-6)
    np.testing.assert_allclose(acts["attn_out", 2][0], seen["attn_out"][0], atol=1e-6)
    np.testing.assert_allclose(acts["image_features"][0], features[0], atol=1e-6)
    assert acts["vision_resid_post", 1].shape[-1] == 32 and acts["k", 0].shape[-2:] == (2, 16)


def test_mean_over_a_span_and_projection_before_copying(llava, samples):
    full = capture(llava, samples, "resid_post", "question", batch_size=2)
    mean = capture(llava, samples, "resid_post", "question", reduce="mean", batch_size=2)
    directions = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    on = capture(llava, samples, "resid_post", "question", directions=directions)
    both = capture(llava, samples, "resid_post", "question", directions=directions[0], reduce="mean")
    assert mean["resid_post", 1].shape == (3, 1, 64) and mean.valid.all()
    assert on["resid_post", 1].shape == (*full.valid.shape, 3) and both["resid_post", 1].shape == (3, 1, 1)
    for row in range(3):
        real = full["resid_post", 1][row][full.valid[row]]
        np.testing.assert_allclose(mean["resid_post", 1][row, 0], real.mean(0), atol=1e-5)
        np.testing.assert_allclose(on["resid_post", 1][row][full.valid[row]], real @ directions.numpy().T, atol=1e-4)
        np.testing.assert_allclose(both["resid_post", 1][row, 0, 0], real.mean(0) @ directions[0].numpy(), atol=1e-4)
    assert on.nbytes < full.nbytes / 20
    half = capture(llava, samples, "resid_post", "last", dtype=torch.float16)
    assert half["resid_post", 0].dtype == np.float16


def test_bad_reductions_are_refused(llava, samples):
    with pytest.raises(UsageError, match="write 'mean'"):
        capture(llava, samples, reduce="sum")
    with pytest.raises(UsageError, match="finite"):
        capture(llava, samples, directions=torch.full((2, 64), float("nan")))
    with pytest.raises(SiteError, match="32 wide"):
        capture(llava, samples, directions=torch.ones(2, 32))
    with pytest.raises(SiteError, match=r"\(4, 16\) numbers a position"):
        capture(llava, samples, "z", directions=torch.ones(2, 64))


def test_capturing_changes_nothing_and_leaves_nothing_behind(llava, samples):
    encoded = llava.encode(samples)
    before = llava.logits(encoded)
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in llava.model.modules())
    acts = capture(llava, samples, list(all_sites(llava.anatomy)), "question[-2:]", logits=True)
    # patterns make attention eager in their blocks, which changes the last bits only
    np.testing.assert_allclose(acts.logits, before.numpy(), atol=1e-5)
    plain = capture(llava, samples, ["resid_post", "z", "mlp_out"], "all", logits=True)
    assert np.array_equal(plain.logits, before.numpy())
    assert torch.equal(llava.logits(encoded), before)
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in llava.model.modules()) == hooks


def test_a_hook_that_does_not_fire_is_an_error(llava, samples):
    lonely = torch.nn.Linear(2, 2)
    reached = tap(Site("resid_post", 0), llava.anatomy)
    silent = type(reached)(lonely, "output")
    with pytest.raises(SiteError, match="did not fire"), attached([(Site("resid_post", 0), silent, lambda *_: None)]):
        llava.logits(llava.encode(samples))


def test_run_with_cache_filters_as_transformer_lens_does(llava, samples):
    encoded = llava.encode(samples)
    logits, cache = llava.run_with_cache(encoded)
    with torch.inference_mode():
        plain = llava.model(**llava.forward_inputs(encoded)).logits
    real = encoded.inputs["attention_mask"].bool()
    torch.testing.assert_close(logits[real], plain[real], atol=1e-5, rtol=1e-5)
    assert "blocks.0.attn.hook_pattern" in cache and "hook_embed" in cache and len(cache) > 40
    named, only = llava.run_with_cache(encoded, lambda name: name.endswith("hook_resid_post"))
    assert set(only) == {f"blocks.{block}.hook_resid_post" for block in range(4)}
    assert torch.equal(named, plain)
    assert torch.equal(only["resid_post", -1], only["blocks.3.hook_resid_post"])
    _, listed = llava.run_with_cache(samples[0], ["blocks.1.hook_mlp_out", "hook_embed"])
    assert set(listed) == {"blocks.1.hook_mlp_out", "hook_embed"}
    with pytest.raises(SiteError, match="was not cached"):
        only["mlp_out", 0]
    with pytest.raises(SiteError, match="accepts none"):
        llava.run_with_cache(encoded, lambda name: False)


def test_run_with_hooks_edits_and_names_its_point(llava, samples):
    encoded = llava.encode(samples[:1])
    points = []

    def halve(value, hook):
        points.append((hook.name, hook.layer()))
        return value * 0.5

    changed = llava.run_with_hooks(encoded, [(lambda name: "hook_mlp_out" in name, halve)])
    assert points == [(f"blocks.{block}.hook_mlp_out", block) for block in range(4)]
    handles = [block.mlp.register_forward_hook(lambda _, __, output: output * 0.5) for block in llava.anatomy.blocks]
    with torch.inference_mode():
        by_hand = llava.model(**llava.forward_inputs(encoded)).logits
    for handle in handles:
        handle.remove()
    assert torch.equal(changed, by_hand)
    seen, cache = llava.run_with_cache(encoded, "resid_post", fwd_hooks=[("blocks.1.hook_resid_post", halve)])
    assert torch.equal(seen, llava.run_with_hooks(encoded, [("blocks.1.hook_resid_post", halve)]))
    plain = llava.run_with_cache(encoded, "resid_post")[1]
    assert torch.equal(cache["resid_post", 1], plain["resid_post", 1] * 0.5)
    with pytest.raises(SiteError, match=r"edit\.knockout"):
        llava.run_with_hooks(encoded, [("blocks.1.attn.hook_pattern", halve)])


def test_sites_that_a_family_lacks_are_named():
    aya = LVLM(*tiny_model("aya_vision"))
    with pytest.raises(SiteError, match="has no site 'resid_mid'"):
        expand_sites("resid_mid", aya.anatomy)
    lfm = LVLM(*tiny_model("lfm2_vl"))
    assert [site.block for site in expand_sites("z", lfm.anatomy)] == [1, 3]  # convolutions have no heads
    assert len(expand_sites("attn_out", lfm.anatomy)) == 4
