"""Image features computed once give what pixels give, or the model goes on with pixels and says why."""

import numpy as np
import pytest
import torch
from PIL import Image

from lvlm_lens import LVLM, Sample
from lvlm_lens.activations import Site, capture, capture_to, features
from lvlm_lens.activations.features import FeatureCache
from lvlm_lens.data.images import ImageFile, ImageObject
from lvlm_lens.models.tiny import tiny_model

WORDS = ["Is it safe?", "Can my toddler play with this?", "What is this and how is it used?"]


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (36, 32, 3), dtype=np.uint8))


def shared(pictures=2):
    shown = [ImageObject(picture(seed)) for seed in range(pictures)]
    return [Sample(id=f"p{p}w{w}", text=WORDS[w], images=(shown[p],)) for p in range(pictures) for w in range(3)]


def towers(model):
    """Counts the pictures that go through the vision tower."""
    seen = []
    handle = model.anatomy.vision.register_forward_hook(lambda *_: seen.append(1))
    return seen, handle


@pytest.mark.parametrize("family", ["llava", "vipllava", "paligemma", "gemma3", "qwen2_5_vl"])
def test_features_give_the_logits_of_pixels(family):
    model = LVLM(*tiny_model(family))
    data = shared()
    cache = FeatureCache.for_capture(model, data, [Site("resid_post", 0)])
    assert cache is not None
    for batch in (data[:4], data[4:], data[::2]):
        encoded = model.encode(batch)
        ready = cache.apply(encoded)
        assert cache.reason is None
        assert "pixel_values" not in ready.inputs
        torch.testing.assert_close(model.logits(ready), model.logits(encoded), atol=1e-4, rtol=1e-4)
    assert cache.computed == 2  # the check of the first row uses what is there


@pytest.mark.parametrize(
    ("family", "reason"), [("qwen3_vl", "deepstack"), ("llava_next", "pads or tiles"), ("mllama", "no image features")]
)
def test_families_that_cannot_take_features_go_on_with_pixels(family, reason):
    model = LVLM(*tiny_model(family))
    data = shared()
    cache = FeatureCache(model)
    encoded = model.encode(data[:2])
    assert cache.apply(encoded) is encoded
    assert reason in cache.reason
    with_pixels = capture(model, data, "resid_post", "last", batch_size=6)
    assert np.isfinite(with_pixels["resid_post", 0]).all()


def test_a_capture_sends_each_picture_through_the_tower_once(tmp_path):
    model = LVLM(*tiny_model("llava"))
    data = shared(3)
    alone = [model.capture([sample], "resid_post", "all") for sample in data]
    seen, handle = towers(model)
    memory = model.capture(data, "resid_post", "all", batch_size=4)
    in_memory = len(seen)
    store = capture_to(model, data, tmp_path / "a", "resid_post", "all", batch_size=4)
    handle.remove()
    assert in_memory == 3 + 1  # and one row with pixels, to compare
    assert len(seen) - in_memory == 3 + 1
    for row, single in enumerate(alone):
        count = single.valid.sum()
        for got in (memory["resid_post", 2], store["resid_post", 2]):
            np.testing.assert_allclose(got[row, :count], single["resid_post", 2][0], atol=1e-4)


def test_sites_before_the_features_and_rare_pictures_use_pixels():
    model = LVLM(*tiny_model("llava"))
    data = shared()
    assert FeatureCache.for_capture(model, data, [Site("vision_resid_post", 0)]) is None
    assert FeatureCache.for_capture(model, data, [Site("image_features")]) is None
    assert FeatureCache.for_capture(model, data[::3], [Site("resid_post", 0)]) is None
    assert FeatureCache.for_capture(model, [Sample(id="t", text="words")], [Site("resid_post", 0)]) is None
    both = model.capture(data, ["image_features", "resid_post"], "last", batch_size=3)
    assert both.arrays[Site("image_features")].shape[0] == len(data)


def test_features_that_are_wrong_are_found_and_not_used(monkeypatch):
    model = LVLM(*tiny_model("llava"))
    data = shared()
    truth = model.logits(model.encode(data))
    cache = FeatureCache(model)
    honest = cache._features

    def wrong(**inputs):
        output = honest(**inputs)
        output.pooler_output = [part.flip(0) for part in output.pooler_output]
        return output

    monkeypatch.setattr(cache, "_features", wrong)
    encoded = model.encode(data)
    assert cache.apply(encoded) is encoded
    assert "differ" in cache.reason
    torch.testing.assert_close(model.logits(cache.apply(encoded)), truth)


def test_old_features_make_room(tmp_path):
    model = LVLM(*tiny_model("llava"))
    for seed in range(3):
        picture(seed).save(tmp_path / f"{seed}.png")
    data = [Sample(id=f"s{i}", text="Is it safe?", images=(ImageFile(tmp_path, f"{i}.png"),)) for i in range(3)]
    one = 16 * 64 * 4
    cache = FeatureCache(model, limit=2 * one)
    for row in (0, 1, 0, 2, 0, 1):  # 1 is the oldest when 2 comes
        cache.apply(model.encode(data[row]))
    assert cache.computed == 4
    assert sum(features._size(parts) for parts in cache._kept.values()) <= 2 * one
