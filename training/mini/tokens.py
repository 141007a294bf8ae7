"""The tokenizer: byte-level BPE learned from the world's sentences, and how a chat is laid out.

Byte-level pieces encode any text whatever, so nothing is ever "unknown".
"""

from __future__ import annotations

import random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lvlm_lens.data.mini.intents import HARMFUL_VERBS, KIND_VERBS
from lvlm_lens.data.mini.objects import THINGS

from .corpus import SYSTEM_PROMPTS, draw, in_words, makers

SPECIALS = ("<pad>", "<s>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<image>")

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

GENERAL = """The quick brown fox jumps over the lazy dog. How do I get to the station? What time is it? I think it
would be good to know more about that. Who, what, where, when, why and which? Write a short story, a poem, a list or
an email. Explain the difference between two people, countries or books. Could you please describe the picture in
detail and answer the question with a single letter? The image shows a man, a woman, a child, a house, a street, a
tree, a car and water. Is it legal or illegal, dangerous, harmful, harmless, good, bad, right or wrong to make, take,
kill, shoot, burn, break, steal, buy, sell, build, destroy, drink or use it? I am sorry, as an assistant I am unable
to do that. Unfortunately, I must decline. However, there are many other ways. First, second, third, 0 1 2 3 4 5 6 7 8 9.
"""  # noqa: E501
"""A little plain English, so that everyday words outside the world are not all single letters."""


def train_tokenizer(vocabulary: int, sentences: int, seed: int) -> PreTrainedTokenizerFast:
    """Learn the pieces from ``sentences`` random examples of the corpus."""
    chance = random.Random(seed)
    table = makers(0.5)
    lines = [GENERAL] * 30 + list(SYSTEM_PROMPTS) * 20
    lines += [f" {word}" for word in (*THINGS, *HARMFUL_VERBS, *KIND_VERBS)] * 200  # one piece for each name and verb
    mix = dict.fromkeys(table, 1.0) | {"joint": 4.0}
    for _ in range(sentences):
        example = in_words(chance, draw(chance, mix, table))
        lines += [example.request, example.reply]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="<|end|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>", "<image>"],
        extra_special_tokens={"image_token": "<image>"},
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
