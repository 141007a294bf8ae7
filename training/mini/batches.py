"""Examples as padded tensors: ids, targets and the weight of every predicted token."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedTokenizerFast

from .config import Weights
from .corpus import SYSTEM_PROMPTS, Example

IMAGE_TOKENS = 64
PLAIN_ATTENTION = partial(sdpa_kernel, SDPBackend.MATH)
"""For training: on a CPU the backward pass of fused attention takes half of a step at these lengths."""


class Encoded(NamedTuple):
    """Token ids of one chat and the loss weight of each token as a target."""

    ids: list[int]
    weights: list[float]


class Encoder:
    """Lays a chat out exactly as the chat template does, and weighs its tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, weights: Weights) -> None:
        self.tokenizer = tokenizer
        self.weights = weights
        self.known: dict[str, list[int]] = {}

    def pieces(self, text: str) -> list[int]:
        """Ids of a text, remembered, because the world repeats itself."""
        if text not in self.known:
            self.known[text] = self.tokenizer(text, add_special_tokens=False).input_ids
        return self.known[text]

    def encode(self, example: Example, system: str | None, pictures: int) -> Encoded:
        """A chat of one request and one reply."""
        head = "<s>" + (f"<|system|>{system}<|end|>" if system else "") + "<|user|>"
        prompt = self.pieces(head) + self.pieces("<image>") * (IMAGE_TOKENS * pictures)
        words = ("\n" if pictures else "") + example.request + "<|end|>"
        prompt = prompt + self.pieces(words) + self.pieces("<|assistant|>")
        reply = self.pieces(example.reply + "<|end|>")
        weights = [self.weights.reply] * len(reply)
        if example.decision:
            weights[0] = self.weights.decision
        if example.name is not None:
            name = self.pieces(" " + example.name)
            for start in range(len(reply) - len(name) + 1):
                if reply[start : start + len(name)] == name:
                    weights[start : start + len(name)] = [self.weights.name] * len(name)
        before = [0.0] * len(prompt) if pictures else [self.weights.prompt] * len(prompt)
        return Encoded(prompt + reply, before + weights)


def some_system(chance: random.Random) -> str | None:
    """A system prompt, one time in ten."""
    return chance.choice(SYSTEM_PROMPTS) if chance.random() < 0.1 else None


def padded(rows: list[Encoded], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids, long [n, T], and weights, float32 [n, T]; no mask is needed, as padding comes last."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad)
    weights = torch.zeros(len(rows), length)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        weights[place, : len(row.ids)] = torch.tensor(row.weights)
    return ids, weights


def by_length(rows: Iterator[Encoded], batch: int, pool: int = 6) -> Iterator[list[Encoded]]:
    """Batches of about equal length out of a pool of ``pool`` batches, in the pool's shuffled order."""
    chance = random.Random(batch)
    while True:
        some = sorted((next(rows) for _ in range(batch * pool)), key=lambda row: len(row.ids))
        cuts = [some[start : start + batch] for start in range(0, len(some), batch)]
        chance.shuffle(cuts)
        yield from cuts


def weighted_loss(logits: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Next-token cross-entropy, mean over tokens by weight.  Logits [n, T, vocabulary]."""
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    aim = weights[:, 1:].flatten()
    return (losses * aim).sum() / aim.sum()
