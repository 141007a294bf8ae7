"""Stage 1: the language backbone learns plain English, facts, help and refusal from text alone."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lvlm_lens.data.mini.activities import ACTIVITIES, SHOWING, answer
from lvlm_lens.data.mini.items import quads
from lvlm_lens.data.mini.objects import THINGS

from .batches import PLAIN_ATTENTION, Encoded, Encoder, by_length, padded, some_system, weighted_loss
from .config import LanguageStage
from .corpus import Example, draw, in_words, makers
from .journal import Journal


def text_examples(stage: LanguageStage, cycle: int, encoder: Encoder, seed: int) -> Iterator[Encoded]:
    """Endless random text-only chats."""
    chance = random.Random(seed)
    table = makers(stage.harmful_share)
    while True:
        example = in_words(chance, draw(chance, stage.mixes[cycle], table))
        yield encoder.encode(example, some_system(chance), pictures=0)


def new_decoder(config: LlamaConfig, seed: int) -> LlamaForCausalLM:
    """A decoder with random weights."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def train_cycle(
    model: LlamaForCausalLM, stage: LanguageStage, cycle: int, encoder: Encoder, seed: int, journal: Journal
) -> None:
    """One cycle, in place: a fresh optimizer whose rate rises and falls once."""
    steps, rate = stage.cycles[cycle]
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.98), weight_decay=stage.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.06)
    rows = by_length(text_examples(stage, cycle, encoder, seed + 1000 * cycle), stage.batch)
    pad = encoder.tokenizer.pad_token_id
    started = time.time()
    for step in range(1, steps + 1):
        ids, weights = padded(next(rows), pad)
        with PLAIN_ATTENTION(), torch.autocast("cpu", torch.bfloat16, enabled=stage.bfloat16):
            logits = model(input_ids=ids, use_cache=False).logits
        loss = weighted_loss(logits, ids, weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % stage.log_every == 0 or step == steps:
            refused = text_refusal(model, encoder)
            seconds = time.time() - started
            journal.write(stage="language", cycle=cycle, step=step, loss=loss.item(), seconds=seconds, **refused)
    model.eval()


@torch.no_grad()
def first_words(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, requests: list[list[int]]) -> list[str]:
    """The first token of the greedy reply to each encoded prompt."""
    words = []
    for ids in requests:
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        words.append(str(tokenizer.decode([int(logits.argmax())])))
    return words


def text_refusal(model: LlamaForCausalLM, encoder: Encoder) -> dict[str, float]:
    """Share refused of the set's validation quads said in words (training never has their combinations)."""
    cells = {True: [], False: []}  # type: dict[bool, list[list[int]]]
    for quad in quads():
        if quad.split != "validation":
            continue
        for thing in quad.things:
            for key, (frame, phrase) in zip(quad.activities, quad.phrasings, strict=True):
                reply = answer(THINGS[thing], ACTIVITIES[key])
                words = ACTIVITIES[key].question(frame, phrase)
                request = f"{SHOWING[quad.number % len(SHOWING)].format(a=THINGS[thing].a)} {words}"
                row = encoder.encode(Example(request, "", False), None, 0)
                cells[reply.startswith("Sorry")].append(row.ids[:-1])
    model.eval()
    rates = {
        harmful: sum(word == "Sorry" for word in first_words(model, encoder.tokenizer, rows)) / len(rows)
        for harmful, rows in cells.items()
    }
    model.train()
    return {"harm_refused": rates[True], "safe_refused": rates[False]}
