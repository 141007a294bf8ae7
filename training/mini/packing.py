"""Several questions about one picture in one row, each blind to the others.

A picture's 64 tokens cost more than a question, so they are computed once for a handful of
questions: the row is ``picture, question and reply, question and reply ...``, every question
takes the positions right after the picture, and a mask lets it see the picture and itself only.
This is exactly the same computation as separate rows, at less than half the cost.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from .batches import IMAGE_TOKENS, Encoded, Encoder
from .config import TuningStage
from .corpus import draw, makers

PREFIX = 2 + IMAGE_TOKENS
"""Tokens before a question: start, user turn, picture."""


class Pack(NamedTuple):
    """A picture (its place in the gallery) and encoded chats about it."""

    picture: int
    chats: list[Encoded]


class Packed(NamedTuple):
    """Rows as tensors: ids and weights [n, T], positions [n, T], and who may look at whom, bool [n, 1, T, T]."""

    ids: torch.Tensor
    weights: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor


def packs(stage: TuningStage, encoder: Encoder, gallery: dict[str, list[int]], seed: int) -> Iterator[Pack]:
    """Endless packs of ``stage.questions`` chats drawn from the stage's mixture."""
    chance = random.Random(seed)
    table = makers(stage.harmful_share)

    def chat() -> tuple[str, Encoded]:
        drawn = draw(chance, stage.mix, table)
        return drawn.thing, encoder.encode(drawn.example, None, pictures=1)

    return packs_of(chat, stage.questions, gallery, chance)


def packs_of(
    chat: Callable[[], tuple[str, Encoded]], questions: int, gallery: dict[str, list[int]], chance: random.Random
) -> Iterator[Pack]:
    """Endless packs of chats about things; drawn from the mixture first and sorted by thing afterwards."""
    while True:
        by_thing: dict[str, list[Encoded]] = {}
        for _ in range(6000):
            thing, encoded = chat()
            by_thing.setdefault(thing, []).append(encoded)
        made = [
            Pack(chance.choice(gallery[thing]), chats[start : start + questions])
            for thing, chats in by_thing.items()
            for start in range(0, len(chats) - questions + 1, questions)
        ]
        chance.shuffle(made)
        yield from made


def collate(some: list[Pack], pad: int, prefix: int | Sequence[int] = PREFIX) -> Packed:
    """Put packs side by side as tensors; the first ``prefix`` tokens of a pack's chats are equal and stand there once.

    ``prefix`` is one number for all packs, or one for each.
    """
    prefixes = [prefix] * len(some) if isinstance(prefix, int) else prefix
    rows = [
        pack.chats[0].ids[:shared] + [i for chat in pack.chats for i in chat.ids[shared:]]
        for pack, shared in zip(some, prefixes, strict=True)
    ]
    length = max(map(len, rows))
    ids = torch.full((len(some), length), pad)
    weights = torch.zeros(len(some), length)
    positions = torch.zeros(len(some), length, dtype=torch.long)
    owner = torch.full((len(some), length), -1)  # 0 the picture, 1 .. the questions, -1 padding
    for place, (pack, row, shared) in enumerate(zip(some, rows, prefixes, strict=True)):
        ids[place, : len(row)] = torch.tensor(row)
        positions[place, :shared] = torch.arange(shared)
        owner[place, :shared] = 0
        start = shared
        for number, chat in enumerate(pack.chats, 1):
            end = start + len(chat.ids) - shared
            weights[place, start:end] = torch.tensor(chat.weights[shared:])
            positions[place, start:end] = torch.arange(shared, len(chat.ids))
            owner[place, start:end] = number
            start = end
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    same = owner[:, :, None] == owner[:, None, :]  # [n, query, key]
    picture = (owner == 0)[:, None, :]
    return Packed(ids, weights, positions, ((same | picture) & causal)[:, None])
