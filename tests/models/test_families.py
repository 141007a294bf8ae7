"""The battery on every family, what it catches, and families that have no row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from prompts import picture

from lvlm_lens import LVLM
from lvlm_lens.activations import capture
from lvlm_lens.activations.check_anatomy import CheckReport, check_anatomy, quick_check
from lvlm_lens.activations.check_families import check_families, family_rows
from lvlm_lens.data import Sample
from lvlm_lens.errors import DataError, ImageLostError, ModelError
from lvlm_lens.models import FAMILIES, anatomy
from lvlm_lens.models.tiny import TINY, parts, tiny_model

MODELS = {}
ASKED_FOR = [
    "llava",
    "llava_next",
    "llava_onevision",
    "vipllava",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "internvl",
    "idefics2",
    "idefics3",
    "smolvlm",
    "paligemma",
    "gemma3",
    "gemma4",
    "mistral3",
    "blip-2",
    "instructblip",
    "mllama",
    "chameleon",
    "glm4v",
    "lfm2_vl",
    "aya_vision",
    "llama4",
    "molmo2",
    "janus",
    "llama",
    "qwen2",
    "qwen3",
    "gemma3_text",
    "mistral",
]


def model(family):
    if family not in MODELS:
        MODELS[family] = LVLM(*tiny_model(family))
    return MODELS[family]


def text_stranger(config, cls, drop=(), **more):
    tokenizer = parts.make_tokenizer()
    tokenizer.chat_template = parts.chat_template()
    sizes = {name: value for name, value in parts.sizes(tokenizer).items() if name not in drop}
    return LVLM(parts.drawn(cls(config(**sizes, **more)), 0), tokenizer)


def test_every_family_asked_for_has_a_row_and_a_tiny_model():
    assert set(ASKED_FOR) == set(TINY) and set(ASKED_FOR) <= set(FAMILIES)
    assert {row["family"] for row in family_rows() if row["checked"]} == set(ASKED_FOR)


@pytest.mark.parametrize("family", ASKED_FOR)
def test_battery(family):
    report = check_anatomy(model(family))
    assert report.failed == {}
    plain = [name for name in report.passed if name.startswith("plain, with")]
    assert len(plain) == 1 + (model(family).takes_images and "needs_image" not in FAMILIES[family].flow)
    assert len(report.passed) - len(plain) == (11 if model(family).takes_images else 8)


@pytest.mark.parametrize("family", ASKED_FOR)
def test_capture_of_a_data_set_equals_plain_forwards(family):
    lvlm = model(family)
    words = ["Is it safe", "Can my toddler play with this?", "Is this one safe too, do you think?"]
    shared = picture(0)  # the same picture in two prompts, so that its features may be computed once
    images = [(shared,), (picture(1),), (shared,)] if lvlm.takes_images else [(), (), ()]
    samples = [Sample(f"s{i}", text, image) for i, (text, image) in enumerate(zip(words, images, strict=True))]
    acts = capture(lvlm, samples, ["resid_post", "z"] if family != "lfm2_vl" else "resid_post", "last", logits=True)
    for row, sample in enumerate(samples):
        encoded = lvlm.encode(sample)
        with torch.inference_mode():
            out = lvlm.model(**encoded.inputs, output_hidden_states=True)
        inner = getattr(out, "language_model_outputs", None) or out
        expected = inner.hidden_states[2][0, -1].numpy()  # plain positions count the same in an unpadded row
        np.testing.assert_allclose(acts["resid_post", 1][row, 0], expected, atol=1e-4, rtol=1e-3)
        finite = np.isfinite(out.logits[0, -1].numpy()) & (out.logits[0, -1].numpy() > -1e30)
        np.testing.assert_allclose(acts.logits[row][finite], out.logits[0, -1].numpy()[finite], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("family", [name for name in ASKED_FOR if name != "chameleon"])
def test_the_first_generated_token_is_the_one_the_logits_choose(family):
    lvlm = model(family)
    image = (picture(3),) if lvlm.takes_images else ()
    samples = [Sample("a", "Is it safe", image), Sample("b", "Can my toddler play with this?", image)]
    chosen = lvlm.logits(lvlm.encode(samples)).argmax(-1)
    encoded = lvlm.encode(samples)
    made = lvlm.model.generate(**encoded.inputs, max_new_tokens=1, do_sample=False, pad_token_id=0)
    assert made[:, -1].tolist() == chosen.tolist()


# -- what the battery catches ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "wrong", "caught"),
    [
        ("llava", {"mid_norm": "input_layernorm"}, "blocks add up"),
        ("llava", {"norm": "layers.0.input_layernorm"}, "lens of the last block"),
        ("gemma3", {"attn_post_norm": None}, "blocks add up"),
        ("gemma3_text", {"mlp_post_norm": None}, "blocks add up"),
        ("qwen3_vl", {"flow": frozenset({"mrope"})}, "a donor edit"),
        ("gemma4", {"flow": FAMILIES["gemma4"].flow - {"shared_kv"}}, "a donor edit"),
        ("mllama", {"flow": frozenset()}, "image positions"),
    ],
)
def test_a_wrong_row_is_caught(monkeypatch, family, wrong, caught):
    monkeypatch.setitem(anatomy.FAMILIES, family, replace(FAMILIES[family], **wrong))
    report = check_anatomy(LVLM(*tiny_model(family)))
    assert caught in report.failed, report.failed


def test_wrong_image_token_and_lost_pixels_are_caught():
    built, processor = tiny_model("llava")
    built.config.image_token_id = processor.tokenizer.convert_tokens_to_ids("</s>")
    lvlm = LVLM(built, processor)
    with pytest.raises(ImageLostError):
        lvlm.encode(Sample("a", "Is it safe", (picture(0),)))
    assert not check_anatomy(lvlm, quick=True).ok
    with pytest.raises(ModelError, match="nothing measured on it"):
        quick_check(lvlm)


def test_check_families_gives_one_row_a_family_and_survives_one_that_cannot_be_built(monkeypatch):
    def broken(seed):
        raise RuntimeError("no such layer")

    monkeypatch.setitem(TINY, "llama", broken)
    rows = check_families(["llama", "qwen2"])
    assert [row["family"] for row in rows] == ["llama", "qwen2"]
    assert [row["ok"] for row in rows] == [False, True]
    assert "no such layer" in rows[0]["failed"][0] and rows[1]["failed"] == []
    assert 0 <= rows[1]["max_abs_error"] < 1e-4
    assert CheckReport("x").ok


# -- strangers -------------------------------------------------------------------------------------


def test_a_vision_family_without_a_row_is_discovered():
    from transformers.models.ovis2.image_processing_pil_ovis2 import Ovis2ImageProcessorPil

    marks = ("<IMG_ATOM>", "<image_newline>", "<image_break>", "<image_start>", "<image_end>", "<image_prefix_start>")
    tokenizer = parts.make_tokenizer({"image_token": "<image>"}, extra=marks)
    config = transformers.Ovis2Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "vocab_size": 64,
            "hidden_stride": 2,
            "num_visual_indicator_tokens": 5,
        },
        text_config=parts.sizes(tokenizer, model_type="qwen2"),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=[tokenizer.convert_tokens_to_ids(mark) for mark in marks[1:]],
        vocab_size=len(tokenizer),
        hidden_size=64,
    )
    processor = transformers.Ovis2Processor(
        Ovis2ImageProcessorPil(size={"height": 32, "width": 32}),
        tokenizer,
        chat_template=parts.chat_template("<image>"),
        image_token="<image>",
        image_seq_length=4,
    )
    assert "ovis2" not in FAMILIES
    lvlm = LVLM(parts.drawn(transformers.Ovis2ForConditionalGeneration(config), 0), processor)
    assert lvlm.anatomy.family.discovered and len(lvlm.anatomy.vision_blocks) == 2
    report = check_anatomy(lvlm)
    assert report.failed == {} and len(report.passed) == 13


def test_text_families_without_a_row():
    phi = text_stranger(transformers.Phi3Config, transformers.Phi3ForCausalLM)
    assert phi.anatomy.family.discovered and check_anatomy(phi).failed == {}
    drop = ("intermediate_size", "num_key_value_heads")
    assert check_anatomy(text_stranger(transformers.GPT2Config, transformers.GPT2LMHeadModel, drop)).ok
    # OLMo 2 normalises what a block writes before it is added
    assert check_anatomy(text_stranger(transformers.Olmo2Config, transformers.Olmo2ForCausalLM)).failed == {}


def test_what_cannot_be_understood_is_refused_by_the_missing_part():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = transformers.LlamaConfig(num_hidden_layers=2, hidden_size=8, num_attention_heads=2)
            self.config.model_type = "odd"
            self.layers = torch.nn.ModuleList([torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)])

    with pytest.raises(ModelError, match="family 'odd': no final norm was found"):
        anatomy.resolve(Odd())
    empty = Odd()
    empty.layers = torch.nn.Linear(8, 8)
    with pytest.raises(ModelError, match="no list of 2 decoder blocks"):
        anatomy.resolve(empty)


# -- pictures --------------------------------------------------------------------------------------


def test_pictures_of_other_sizes_get_other_numbers_of_tokens():
    lvlm = model("qwen2_5_vl")
    wide, square = (lvlm.encode(Sample("a", "Is it safe", (picture(0, size),))) for size in ((48, 16), (32, 32)))
    assert len(wide.layouts[0].images[0]) < len(square.layouts[0].images[0])
    both = lvlm.encode([Sample("a", "Is it safe", (picture(0, (48, 16)),)), Sample("b", "Is", (picture(0, (32, 32)),))])
    assert [len(layout.images[0]) for layout in both.layouts] == [
        len(wide.layouts[0].images[0]),
        len(square.layouts[0].images[0]),
    ]


def test_families_that_need_a_picture_say_so():
    with pytest.raises(DataError, match="does not run without one"):
        model("blip-2").encode(Sample("a", "Is it safe"))
    with pytest.raises(ImageLostError, match="takes text only"):
        model("llama").encode(Sample("a", "Is it safe", (picture(0),)))
