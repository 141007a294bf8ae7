"""``training/mini_depth``: scenes that need several steps, held against the processor, labels and plain forwards."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

from lvlm_lens.data.mini.activities import ACTIVITIES
from lvlm_lens.data.mini.items import held_combinations
from lvlm_lens.data.mini.objects import THINGS
from lvlm_lens.models.mini import mini_path
from training.mini.batches import Encoder
from training.mini.config import Weights
from training.mini.packing import collate
from training.mini.vision import logits_of
from training.mini_depth.chats import draw_row, head
from training.mini_depth.items import depth_set
from training.mini_depth.world import draw_scene


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(mini_path())


@pytest.fixture(scope="module")
def items():
    return [sample for sample in depth_set("validation", 2) if sample.meta["part"] == "joint"]


def test_training_rows_are_laid_out_as_the_processor_lays_them_out(processor, items):
    encoder, sample = Encoder(processor.tokenizer, Weights()), items[3]
    told, _, request = sample.text.partition(". ")
    after = encoder.pieces(f" {request}<|end|>") + encoder.pieces("<|assistant|>")
    parts = {None: [{"type": "image"}], sample.groups["object"]: []}
    for named, pictures in parts.items():
        text = sample.text if named is None else sample.text_only
        chat = [{"role": "user", "content": [*pictures, {"type": "text", "text": text}]}]
        prompt = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        more = {"images": [sample.images[0].load()]} if pictures else {}
        wanted = processor(text=[prompt], add_special_tokens=False, **more)["input_ids"][0]
        assert head(encoder, named, f"{told}.") + after == list(wanted)


def test_neither_words_nor_picture_tell_the_label(items):
    words, pictures = defaultdict(list), defaultdict(list)
    for sample in items:
        words[sample.text].append(sample.harmful)
        pictures[sample.images].append(sample.harmful)
    assert len(items) == 456
    assert all(sum(labels) * 2 == len(labels) for labels in (*words.values(), *pictures.values()))


def test_a_request_leads_through_the_chain_to_one_plan():
    scene = draw_scene(random.Random(4), (("plane", 0), ("eat", 0)), 3)
    told = scene.told()
    for which, phrase in enumerate(("for me to take this on a plane", "for me to eat this")):
        at = scene.reference(which, 2)
        for _ in range(2):  # read the chain backwards, from the words alone
            at = told.split(f" is for {at}")[0].rsplit(", ", 1)[-1].removeprefix("Here ")
        assert f"{phrase} is {at}" in told


def test_rows_hold_no_combination_that_is_held_out(processor):
    encoder, chance = Encoder(processor.tokenizer, Weights()), random.Random(0)
    held = defaultdict(set)
    for thing, key in held_combinations():
        if key in ACTIVITIES:
            activity = ACTIVITIES[key]
            whom = "me" if activity.who == "I" else activity.who
            held[THINGS[thing].a] |= {f"for {whom} to {phrase} is plan" for phrase in activity.phrases}
    for _ in range(150):
        row = draw_row(chance, encoder, 2, None)
        text = processor.tokenizer.decode(row.pack.chats[0].ids[: row.shared])
        assert not any(plan in text for plan in held[text.partition("Here is ")[2].partition(".")[0]])


def test_rows_side_by_side_are_the_same_computation_as_single_chats(processor):
    encoder = Encoder(processor.tokenizer, Weights())
    model = LlavaForConditionalGeneration.from_pretrained(mini_path()).eval()
    rows = [draw_row(random.Random(seed), encoder, 2, None) for seed in (1, 2)]
    packed = collate([row.pack for row in rows], encoder.tokenizer.pad_token_id, [row.shared for row in rows])
    no_pictures = torch.zeros(2, dtype=torch.bool)
    with torch.no_grad():
        together = logits_of(model, packed.ids, torch.empty(0), no_pictures, packed.positions, packed.mask)
        for place, row in enumerate(rows):
            start = row.shared
            for chat in row.pack.chats:
                end = start + len(chat.ids) - row.shared
                alone = model(input_ids=torch.tensor([chat.ids])).logits[0, row.shared :]
                torch.testing.assert_close(together[place, start:end], alone, atol=2e-4, rtol=1e-4)
                start = end
