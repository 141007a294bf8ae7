"""Families that do not fit and checkpoints with code of their own: loaded rightly, or refused with the true reason."""

from __future__ import annotations

import json

import pytest
import torch
from strangers import STRANGERS
from transformers import AutoConfig, AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM

from lvlm_lens import LVLM
from lvlm_lens.data import Sample
from lvlm_lens.errors import ModelError
from lvlm_lens.models.anatomy import resolve
from lvlm_lens.models.tiny import tiny_model
from lvlm_lens.models.tiny.parts import drawn, make_tokenizer, sizes


def empty(family: str):
    """A family's structure at its default size, without weights."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(AutoConfig.for_model(family))


@pytest.mark.parametrize("family", ["kosmos-2", "idefics"])
def test_pictures_without_a_token_are_refused_and_not_read_as_words(family):
    _, processor = tiny_model("llava")
    with pytest.raises(ModelError, match=rf"'{family}' takes pictures.*names no token"):
        LVLM(empty(family), processor)


def test_an_encoder_decoder_is_called_one():
    with pytest.raises(ModelError, match="'florence2' is an encoder-decoder"):
        resolve(empty("florence2"))


@pytest.mark.parametrize(("family", "reason"), [("got_ocr2", "no question to ask"), ("fuyu", "question's tokens")])
def test_families_that_cannot_be_asked_say_why(family, reason):
    """They loaded, and the check on load failed with words of their processors (KeyError: 'format')."""
    with pytest.raises(ModelError, match=f"'{family}' .*{reason}"):
        resolve(empty(family))


def test_granite4_vision_is_found_though_it_has_as_many_projectors_as_blocks():
    """Its blocks were sought beside them: "no final norm was found beside 'model.spatial_projectors'"."""
    model, _ = STRANGERS["granite4_vision"]()
    assert len(model.model.spatial_projectors) == len(resolve(model).blocks) == 4
    assert resolve(model).family.decoder == "model.language_model"


def emu3():
    from transformers import Emu3Config, Emu3ForConditionalGeneration

    tokenizer = make_tokenizer({"image_token": "<image>"}, extra=tuple(f"<|visual token {n:06d}|>" for n in range(32)))
    words = {token: number for token, number in tokenizer.get_vocab().items() if "visual" in token or "image" in token}
    vision = {
        "codebook_size": 32, "embed_dim": 8, "latent_channels": 8, "base_channels": 32, "channel_multiplier": [1, 1],
        "hidden_size": 32, "num_attention_heads": 2, "num_res_blocks": 1, "attn_resolutions": [],
    }  # fmt: skip
    words |= {"<|extra_200|>": 0}
    config = Emu3Config(text_config=sizes(tokenizer), vq_config=vision, vocabulary_map=words)
    return drawn(Emu3ForConditionalGeneration(config), 0), tokenizer


def test_emu3_says_its_picture_words_and_is_not_chameleon():
    """Chameleon bars them from being said; Emu3 does not, and was refused because its logits were not barred."""
    model, tokenizer = emu3()
    assert resolve(model).barred is None
    lvlm = LVLM(model, tokenizer)
    sample = Sample("a", "Is it safe?")
    encoded = lvlm.encode(sample)
    with torch.inference_mode():
        states: list[torch.Tensor] = []
        norm = model.model.text_model.norm
        handle = norm.register_forward_pre_hook(lambda module, args: states.append(args[0]))
        plain = model(input_ids=encoded.inputs["input_ids"]).logits[0, -1]
        handle.remove()
    torch.testing.assert_close(lvlm.anatomy.lens(states[0][0, -1]), plain, atol=1e-4, rtol=0)
    torch.testing.assert_close(lvlm.logits(encoded)[0], plain, atol=1e-4, rtol=0)


OWN = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own_llama"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture(scope="module", params=["AutoModelForCausalLM", "AutoModel"])
def own(tmp_path_factory, request):
    """A checkpoint whose class comes with it, as on the hub, under one of the names that a loader may look for."""
    folder = tmp_path_factory.mktemp("own")
    tokenizer = make_tokenizer()
    model = drawn(LlamaForCausalLM(LlamaConfig(**sizes(tokenizer))), 0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "modeling_own.py").write_text(OWN)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own_llama", "architectures": ["OwnModel"],
        "auto_map": {"AutoConfig": "modeling_own.OwnConfig", request.param: "modeling_own.OwnModel"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder, model


def test_a_class_of_the_checkpoints_own_loads_where_it_is_trusted(own):
    folder, model = own
    lvlm = LVLM.from_pretrained(folder, trust_remote_code=True)
    assert type(lvlm.model).__name__ == "OwnModel"
    encoded = lvlm.encode(Sample("a", "Is it safe?"))
    with torch.inference_mode():
        plain = model(input_ids=encoded.inputs["input_ids"]).logits[0, -1]
    torch.testing.assert_close(lvlm.logits(encoded)[0], plain, atol=1e-5, rtol=0)
    with pytest.raises(ModelError, match="--trust-remote-code"):
        LVLM.from_pretrained(folder)
