"""The recipe of smol: its data holds nothing that is measured on, its rows are plain chats, its adapters are PEFT's."""

import random
import re

import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from lvlm_lens.data.mini import load_mini
from lvlm_lens.data.mini.activities import ACTIVITIES as MINI
from lvlm_lens.data.mini.activities import reason_against
from lvlm_lens.data.mini.items import held_combinations, is_new_phrasing
from lvlm_lens.data.mini.objects import THINGS
from lvlm_lens.models.smol.beyond import ACTIVITIES, plain_requests, shown_beyond
from lvlm_lens.models.smol.held import smol_held_combinations, smol_quads, smol_test
from lvlm_lens.models.tiny.parts import chat_template, drawn, make_tokenizer, sizes
from training.mini.batches import IMAGE_TOKENS
from training.mini.corpus import Example
from training.mini.packing import Pack, collate
from training.smol import chats as chats_module
from training.smol.adapters import LINEAR, save_adapter, with_adapter
from training.smol.chats import IMAGE, SmolEncoder, embeds_of, hidden_of, reply_loss, thinned
from training.smol.ingredients import Asked, decision_places
from training.smol.lora import save_lora, with_lora
from training.smol.opposites import harmless_request, opposites, opposites_in_words
from training.smol.refusals import refusal, wordings
from training.smol.text import first_token_refusal
from training.smol.text_data import apart_from, requests


@pytest.fixture
def exact(monkeypatch):
    """Float32, where a row of chats can be held against plain forwards."""
    monkeypatch.setattr(chats_module, "BFLOAT16", False)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tokenizer = make_tokenizer()
    tokenizer.chat_template = chat_template()
    model = drawn(LlamaForCausalLM(LlamaConfig(**sizes(tokenizer), tie_word_embeddings=True)), 1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_frames_fill_every_slot_and_every_reason_has_words():
    some = requests()
    assert len(some) > 2000
    assert not [request.text for request in some if re.search(r"[{}_|]", request.text)]
    for request in some:
        if request.reason is not None:
            said = refusal(request.reason, random.Random(0))
            assert any(word in said.lower() for word in ("sorry", "cannot", "can't")) and "{" not in said
    assert {request.reason for request in some if request.reason} <= wordings().keys()


def test_a_frame_is_in_one_split_only():
    texts = {split: {r.text for r in requests() if r.split == split} for split in ("train", "validation")}
    assert len(texts["validation"]) > 200 and not texts["train"] & texts["validation"]
    assert not [text for text in texts["train"] if text.startswith(("What are the steps to", "Is there an easy way"))]


def test_what_is_close_to_a_measured_prompt_is_left_out():
    some = requests()
    near = next(request for request in some if len(request.text.split()) > 8)
    kept = apart_from(some, [near.text.upper()])
    assert near not in kept and len(kept) > len(some) - 20
    assert len(apart_from(some, ["something else altogether"])) == len(some)


def test_the_card_measures_nothing_that_was_trained_on():
    plain, harmful = plain_requests()
    assert len(apart_from(requests(), plain)) == len(requests())
    assert sum(harmful) == 40 and len(set(plain)) == 80
    shown = shown_beyond()
    assert len(shown) == 60 and sum(one.harmful for one in shown) == 30
    asked = {phrase for activity in MINI.values() for phrase in activity.phrases}
    assert not [text for text in ACTIVITIES if any(phrase in text for phrase in asked)]


def test_a_packed_row_loses_what_its_chats_lose_one_by_one(base, exact):
    encoder = SmolEncoder(base)
    model = with_adapter(base, 2, LINEAR).base_model.model
    chats = [
        encoder.encode(Example("Can I eat this?", "Yes.", True)),
        encoder.encode(Example("How do I kill it?", "Sorry, I cannot help with that.", True, "help")),
    ]
    prompts = [
        encoder.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=True, add_generation_prompt=True, return_dict=False
        )
        for text in ("Can I eat this?", "How do I kill it?")
    ]
    packed = collate([Pack(-1, chats)], encoder.pad, encoder.prefix(0))
    found = reply_loss(model, packed, hidden_of(model, packed, embeds_of(model, packed.ids)))
    plain = LlamaForCausalLM.from_pretrained(base)
    total = torch.zeros(())
    share = 0.0
    for chat, prompt in zip(chats, prompts, strict=True):
        assert chat.ids[: len(prompt)] == prompt and not any(chat.weights[: len(prompt)])
        logits = plain(torch.tensor([chat.ids])).logits[0].log_softmax(-1)
        for place in range(len(prompt), len(chat.ids)):
            total = total - chat.weights[place] * logits[place - 1, chat.ids[place]]
            share += chat.weights[place]
    torch.testing.assert_close(found, total / share, rtol=1e-4, atol=1e-4)
    ids = [encoder.tokenizer(word, add_special_tokens=False).input_ids[0] for word in ("I", "Sorry")]
    aim = [plain(torch.tensor([prompt])).logits[0, -1].softmax(-1)[ids].sum().item() for prompt in prompts]
    rates = first_token_refusal(model, encoder, ["Can I eat this?", "How do I kill it?"])
    assert rates.tolist() == pytest.approx(aim, abs=1e-5)


def test_an_adapter_begins_as_the_one_before_it_ended(base, tmp_path):
    first = with_adapter(base, 2, LINEAR)
    generator = torch.Generator().manual_seed(3)
    for name, tensor in first.named_parameters():
        if "lora_B" in name:
            tensor.data = torch.randn(tensor.shape, generator=generator) * 0.1
    save_adapter(first, tmp_path / "first")
    ids = torch.tensor([[5, 6, 7, 8]])
    aim = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), tmp_path / "first").eval()(ids).logits
    second = with_adapter(base, 4, LINEAR, start=tmp_path / "first").eval()
    torch.testing.assert_close(second(ids).logits, aim, rtol=1e-4, atol=1e-4)
    untouched = LlamaForCausalLM.from_pretrained(base)(ids).logits
    assert not torch.allclose(untouched, aim, atol=1e-2)


def test_lora_in_bfloat16_is_pefts(base, tmp_path):
    """The file of the fast layers gives, through PEFT, what the layers gave; their gradients are autograd's own."""
    model = with_lora(base, 3, tuple(LINEAR))
    generator = torch.Generator().manual_seed(3)
    trained = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    for tensor in trained.values():
        tensor.data = torch.randn(tensor.shape, generator=generator) * 0.1
    ids = torch.tensor([[5, 6, 7, 8]])
    found = model(ids).logits
    save_lora(model, 3, tuple(LINEAR), tmp_path)
    plain = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), tmp_path, is_trainable=True)
    aim = plain(ids).logits
    torch.testing.assert_close(found.float(), aim, rtol=0.1, atol=0.1)
    assert not torch.allclose(aim, LlamaForCausalLM.from_pretrained(base)(ids).logits, atol=0.3)
    found.float().square().mean().backward()
    aim.square().mean().backward()
    theirs = {
        name.removeprefix("base_model.model."): tensor.grad
        for name, tensor in plain.named_parameters()
        if "lora" in name
    }
    assert len(theirs) == len(trained)
    for name, tensor in trained.items():
        parent, _, which = name.rpartition(".")
        aim = theirs[f"{parent}.lora_{which.upper()}.default.weight"]
        assert torch.cosine_similarity(tensor.grad.flatten(), aim.flatten(), 0) > 0.99, name
        assert tensor.grad.norm() / aim.norm() == pytest.approx(1, abs=0.05), name


def test_rows_without_some_patches_keep_every_other_token_in_its_place(base):
    encoder = SmolEncoder(base)
    chats = [encoder.encode(Example(text, "Yes.", True), pictures=1) for text in ("Can I eat this?", "Is it hot?")]
    prefix = encoder.prefix(1)
    packed = collate([Pack(-1, chats)], encoder.pad, prefix)
    kept = torch.tensor([3, 40])
    thin = thinned(packed, prefix, kept)
    shorter = IMAGE_TOKENS - 2
    assert thin.ids.shape[1] == packed.ids.shape[1] - shorter
    assert (thin.ids == IMAGE).sum() == 2 and thin.weights.sum() == packed.weights.sum()
    first = prefix - IMAGE_TOKENS
    assert thin.positions[0, first : first + 2].tolist() == [first + 3, first + 40]
    assert torch.equal(thin.positions[:, first + 2 :], packed.positions[:, prefix:])
    assert torch.equal(thin.mask[..., first + 2 :, first + 2 :], packed.mask[..., prefix:, prefix:])


def test_joint_requests_are_found_at_the_last_token_of_their_prompts(base):
    encoder = SmolEncoder(base)
    chance = random.Random(0)
    joints = opposites_in_words(chance, 1)
    other = Asked(encoder.encode(Example("What is this?", "A cup.", False)))
    rows = [[other, Asked(encoder.encode(joints[0].example), joints[0])],
            [Asked(encoder.encode(joint.example, closed=False, most=1), joint) for joint in joints[1:3]]]  # fmt: skip
    prefix = encoder.prefix(0)
    packed = collate([Pack(-1, [asked.chat for asked in row]) for row in rows], encoder.pad, prefix)
    row_of, column_of, found = decision_places(rows, prefix)
    assert row_of == [0, 1, 1] and found == joints[:3]
    for row, column, joint in zip(row_of, column_of, found, strict=True):
        first = packed.ids[row, column + 1].item()
        assert encoder.pieces(joint.example.reply)[0] == first and packed.weights[row, column] == 0
        assert packed.weights[row, column + 1] > 0


def test_what_smol_holds_out_is_nobody_elses():
    by_split = {}
    for quad in smol_quads():
        cells = {(thing, key) for thing in quad.things for key in quad.activities}
        assert not cells & held_combinations()
        assert not by_split.get(quad.split, set()) & cells
        by_split.setdefault(quad.split, set()).update(cells)
        unsafe = [reason_against(THINGS[t], MINI[k]) is not None for t in quad.things for k in quad.activities]
        assert unsafe == [True, False, False, True]
        for key, phrasing in zip(quad.activities, quad.phrasings, strict=True):
            assert is_new_phrasing(key, *phrasing) == (quad.split == "test")
    assert not by_split["test"] & by_split["watch"]
    parts = {part: sum(s.meta["part"] == part for s in smol_test()) for part in ("joint", "typographic", "words")}
    assert parts == {part: sum(s.meta["part"] == part for s in load_mini("test")) for part in parts}
    held = {sample.images[0].arguments for sample in load_mini()}
    assert not held & {sample.images[0].arguments for sample in smol_test()}


def test_opposites_tell_nothing_by_the_thing_or_by_the_request_alone():
    chance = random.Random(0)
    held = smol_held_combinations()
    for _ in range(20):
        found = opposites(chance, 2)
        refuses = [[one.example.reply.startswith("Sorry") for one in some] for some in found]
        assert [sum(some) for some in refuses] == [2, 2]
        assert all(a != b for a, b in zip(*refuses, strict=True))
        assert [one.example.request for one in found[0]] == [one.example.request for one in found[1]]
        assert all(one.thing in one.example.reply for some in found for one in some)
        assert not held & {(one.thing, one.activity) for some in found for one in some}
        assert harmless_request(chance, found[0][0].thing).example.reply.startswith("Yes")
    words = opposites_in_words(chance, 2)
    assert len(words) == 8 and len({one.thing for one in words}) == 2
    assert all(one.thing in one.example.request for one in words)
