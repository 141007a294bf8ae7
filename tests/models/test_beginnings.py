"""What prompts share at their beginning is run once: the numbers of whole prompts, or whole prompts."""

import numpy as np
import pytest
import torch
from PIL import Image

from lvlm_lens import LVLM, Sample
from lvlm_lens.data.images import ImageObject
from lvlm_lens.measures.evidence import gather
from lvlm_lens.models.tiny import tiny_model

WORDS = ["Is it safe?", "Can my toddler play with this?", "What is this and how is it used in a house with a dog?"]


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (36, 32, 3), dtype=np.uint8))


def asked(pictures):
    shown = [ImageObject(picture(seed)) for seed in range(pictures)]
    return [Sample(f"p{p}w{w}", words, (shown[p],)) for w, words in enumerate(WORDS) for p in range(pictures)]


def in_words(n=5):
    return [Sample(f"w{k}", "My neighbour asks me about this: " + " ".join(["why"] * k)) for k in range(1, n + 1)]


def tokens_of(model):
    """Counts the tokens that go through block 0, without a hook."""
    block, seen = model.anatomy.blocks[0], []
    real = block.forward

    def forward(hidden_states, *args, **kwargs):
        seen.append(hidden_states.shape[0] * hidden_states.shape[1])
        return real(hidden_states, *args, **kwargs)

    block.forward = forward
    return seen


def alone(model, sample, block):
    """What plain Hugging Face says of one row by itself: the last token's state after a block, and its logits."""
    inputs = model.encode([sample]).inputs
    with torch.inference_mode():
        out = model.model(**inputs, output_hidden_states=True, use_cache=False)
    return out.hidden_states[block + 1][0, -1].numpy(), out.hidden_states[0][0].mean(0).numpy(), out.logits[0, -1]


@pytest.mark.parametrize("family", ["llava", "vipllava", "internvl", "llava_onevision", "idefics3"])
@pytest.mark.parametrize("data", [asked(3), in_words()], ids=["pictures", "words"])
def test_evidence_is_that_of_each_row_alone(family, data):
    model = LVLM(*tiny_model(family))
    found = gather(model, data, batch_size=6)
    for row, sample in enumerate(data):
        state, embedding, logits = alone(model, sample, 0)
        np.testing.assert_allclose(found.resid[row, 0], state, atol=2e-5)
        np.testing.assert_allclose(found.embedding[row], embedding, atol=2e-5)
        assert found.top[row] == int(logits.argmax())
        assert found.tokens[row] == len(model.encode([sample]).layouts[0].attended)


def test_a_picture_of_several_prompts_is_run_once():
    model = LVLM(*tiny_model("llava"))
    data = asked(2)
    gather(model, data, batch_size=6)  # proves first
    assert model.beginnings.reason is None
    seen = tokens_of(model)
    gather(model, data, batch_size=6)
    encoded = model.encode(data)
    start, image = encoded.layouts[0].attended[0], encoded.layouts[0].images[0]
    stem, before = image[0] - start, image[-1] + 1 - start
    longest = max(len(layout.attended) for layout in encoded.layouts) - before
    assert sum(seen) == stem + 2 * (before - stem) + 6 * longest
    assert sum(seen) < 0.8 * encoded.inputs["input_ids"].numel()


def test_rows_of_one_picture_stand_side_by_side_and_each_row_comes_once():
    model = LVLM(*tiny_model("llava"))
    data = [*asked(4), *in_words(3)]
    made = model.beginnings.batches(data, 6)
    assert sorted(row for batch in made for row in batch) == list(range(len(data)))
    with_pictures = [batch for batch in made if data[batch[0]].images]
    assert [len({data[row].images[0].key for row in batch}) for batch in with_pictures] == [2, 2]


def test_positions_inside_a_beginning_are_read_in_whole_prompts():
    model = LVLM(*tiny_model("llava"))
    data = asked(2)
    encoded = model.encode(data)
    assert model.beginnings.split(encoded, [layout.last for layout in encoded.layouts]) is not None
    assert model.beginnings.split(encoded, [layout.images[0][-1] for layout in encoded.layouts]) is None
    whole = gather(model, data, "image", batch_size=6)
    state = model.model(**model.encode([data[0]]).inputs, output_hidden_states=True).hidden_states[1][0]
    at = list(model.encode([data[0]]).layouts[0].images[0])
    np.testing.assert_allclose(whole.resid[0, 0], state[at].mean(0).detach().numpy(), atol=2e-5)


def test_hooks_of_others_see_whole_prompts():
    model = LVLM(*tiny_model("llava"))
    data = asked(2)
    lengths = []
    handle = model.anatomy.blocks[0].register_forward_hook(lambda m, a, out: lengths.append(a[0].shape[1]))
    gather(model, data, batch_size=6)
    handle.remove()
    assert lengths == [model.encode(data).length]


@pytest.mark.parametrize("family", ["gemma3", "qwen2_vl", "paligemma", "mllama"])
def test_families_with_a_way_of_their_own_run_whole_prompts(family):
    model = LVLM(*tiny_model(family))
    data = asked(2)
    encoded = model.encode(data)
    assert "its own way" in model.beginnings.reason
    assert model.beginnings.split(encoded, [layout.last for layout in encoded.layouts]) is None


def test_a_forward_that_does_not_take_a_beginning_goes_on_whole():
    """A model whose later tokens forget the cache: the proof finds it, and the evidence is that of whole prompts."""
    model = LVLM(*tiny_model("llava"))
    real = model.model.forward

    def forward(*args, past_key_values=None, **kwargs):
        return real(*args, past_key_values=None, **kwargs)

    model.model.forward = forward
    data = asked(2)
    found = gather(model, data, batch_size=6)
    assert model.beginnings.reason is not None
    np.testing.assert_allclose(found.resid[1, 0], alone(model, data[1], 0)[0], atol=2e-5)


def test_prompts_with_pictures_are_proven_apart_from_those_in_words():
    """A model that forgets the cache beside a picture only: words pass the proof, pictures do not."""
    model = LVLM(*tiny_model("llava"))
    real = model.model.forward

    def forward(*args, past_key_values=None, pixel_values=None, **kwargs):
        cache = past_key_values if pixel_values is None else None
        return real(*args, past_key_values=cache, pixel_values=pixel_values, **kwargs)

    model.model.forward = forward
    gather(model, in_words(), batch_size=6)
    assert model.beginnings.reason is None
    data = asked(2)
    found = gather(model, data, batch_size=6)
    assert model.beginnings.reason is not None
    np.testing.assert_allclose(found.resid[1, 0], alone(model, data[1], 0)[0], atol=2e-5)


def test_a_proof_that_runs_out_of_memory_has_shown_nothing():
    """The batch is halved, and what is run after it is proven again before it is believed."""
    model = LVLM(*tiny_model("llava"))
    real, calls = model.model.forward, []

    def forward(*args, past_key_values=None, **kwargs):
        calls.append(past_key_values is not None)
        if calls[-1] and calls.count(True) == 1:
            raise torch.OutOfMemoryError("out of memory")
        return real(*args, past_key_values=None, **kwargs)  # forgets the beginning, as a proof would see

    model.model.forward = forward
    data = asked(2)
    found = gather(model, data, batch_size=6)
    assert model.beginnings.reason is not None
    np.testing.assert_allclose(found.resid[1, 0], alone(model, data[1], 0)[0], atol=2e-5)
