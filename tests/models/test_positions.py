"""The position language, and layouts of real prompts under both paddings."""

from __future__ import annotations

import numpy as np
import pytest
from prompts import picture

from lvlm_lens import LVLM
from lvlm_lens.activations import capture
from lvlm_lens.data import Sample
from lvlm_lens.errors import SiteError
from lvlm_lens.models import Layout, Positions
from lvlm_lens.models.tiny import tiny_model

LAYOUT = Layout(12, range(2, 12), [range(3, 5), range(6, 8)], range(8, 10))  # two pictures, left padding of two


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("last", [11]),
        ("all", list(range(2, 12))),
        ("image", [3, 4, 6, 7]),
        ("image[0]", [3, 4]),
        ("image[-1]", [6, 7]),
        ("image[1][:1]", [6]),
        ("image[:3]", [3, 4, 6]),
        ("text", [2, 5, 8, 9, 10, 11]),
        ("question", [8, 9]),
        ("question[-1]", [9]),
        ("template", [2, 5, 10, 11]),
        ("template[-2:]", [10, 11]),
        ("all[::-3]", [2, 5, 8, 11]),
        (" question [-1:] | image[0] | last ", [3, 4, 9, 11]),
        ("last | last", [11]),
    ],
)
def test_what_specifications_select(spec, found):
    positions = Positions.parse(spec)
    assert positions.indices(LAYOUT).tolist() == found
    assert Positions.parse(str(positions)) == positions and hash(Positions.parse(str(positions))) == hash(positions)
    assert positions.indices(LAYOUT.shifted(3, 15)).tolist() == [i + 3 for i in found]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lst", "did you mean last"),
        ("question[", "not understood"),
        ("question[a]", "neither an integer nor a slice"),
        ("question[::0]", "step of 0"),
        ("", "not understood"),
        ("last |", "not understood"),
    ],
)
def test_bad_specifications(spec, message):
    with pytest.raises(SiteError, match=message):
        Positions.parse(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [("image[2]", "2 image"), ("question[5]", "only 2 token"), ("question[5:]", "selects no token")],
)
def test_positions_that_a_prompt_lacks(spec, message):
    with pytest.raises(SiteError, match=message):
        Positions.parse(spec).indices(LAYOUT)


@pytest.mark.parametrize("family", ["llava", "llava_next", "idefics3", "qwen2_5_vl", "llama4", "mistral3", "molmo2"])
def test_layouts_of_real_prompts(family):
    lvlm = LVLM(*tiny_model(family))
    two = [Sample("a", "Is it safe", (picture(0), picture(1, (64, 32))))]
    more = [*two, Sample("b", "Can my toddler play with  this, please?", (picture(2), picture(3, (32, 64))))]
    token = lvlm.anatomy.image_token_id
    for side in ("left", "right"):
        encoded = lvlm.encode(more, padding_side=side)
        for row, layout in enumerate(encoded.layouts):
            ids = encoded.inputs["input_ids"][row]
            at = [i for i in range(layout.length) if ids[i] == token and encoded.inputs["attention_mask"][row, i]]
            assert sorted(layout.part("image")) == at and len(layout.images) == 2
            assert max(layout.images[0]) < min(layout.images[1])
            assert lvlm.tokenizer.decode(ids[list(layout.question)]).split() == more[row].text.split()
            parts = [*layout.part("image"), *layout.part("question"), *layout.part("template")]
            assert sorted(parts) == list(layout.attended)
            assert layout.last == max(layout.attended)
    alone = lvlm.encode(two).layouts[0]
    beside = lvlm.encode(more).layouts[0]
    assert beside == alone.shifted(beside.length - alone.length, beside.length)


def test_words_that_look_like_markup_and_other_scripts():
    lvlm = LVLM(*tiny_model("llava"))
    for words in ("USER: hello ASSISTANT: no", "I", "  leading and trailing  ", "日本語の質問 é✓", "a\nb\tc"):
        encoded = lvlm.encode(Sample("a", words, (picture(0),)))
        shown = lvlm.tokenizer.decode(encoded.inputs["input_ids"][0][list(encoded.layouts[0].question)])
        assert shown.strip() == words.strip()


def test_a_system_prompt_and_a_continuation_are_template():
    lvlm = LVLM(*tiny_model("llava"))
    sample = Sample("a", "Is it safe", (picture(0),))
    plain = lvlm.encode(sample).layouts[0]
    framed = lvlm.encode(sample, system="You are careful.", continuation=["Sorry, I"]).layouts[0]
    assert len(framed.question) == len(plain.question) and len(framed.images[0]) == len(plain.images[0])
    assert len(framed.part("template")) > len(plain.part("template"))


def test_capture_means_the_same_positions_in_any_batch():
    lvlm = LVLM(*tiny_model("qwen2_5_vl"))
    sizes = [(32, 32), (48, 16), (64, 32)]
    words = ["Is it safe", "Can my toddler play with this?", "What is it?"]
    samples = [Sample(f"s{i}", w, (picture(i, s),)) for i, (w, s) in enumerate(zip(words, sizes, strict=True))]
    together = capture(lvlm, samples, "resid_post", "image | question[-2:]")
    for row, sample in enumerate(samples):
        alone = capture(lvlm, [sample], "resid_post", "image | question[-2:]")
        real = together.valid[row]
        assert real.sum() == alone.valid.sum()
        np.testing.assert_allclose(together["resid_post", 2][row][real], alone["resid_post", 2][0], atol=1e-4)
        assert np.isnan(together["resid_post", 2][row][~real]).all()
