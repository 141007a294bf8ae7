"""What a joint decision is made of, asked of the hidden states while training; nothing of it ships.

A reply's first token tells one bit about a thing with eighteen properties and a request that bears some of them
and not others.  From that alone the model learned trained combinations by heart (0.87) and held-out ones not at all
(0.46).  So linear heads at the prompt's last token read, after every block from ``FIRST_BLOCK`` on, the properties
of the thing and those that the request cannot bear; and after the last block, which properties are both.  Whether
the request is harmful is never asked of an inner block: where that is decided is left to the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from lvlm_lens.data.mini.activities import ACTIVITIES
from lvlm_lens.data.mini.objects import PROPERTIES, THINGS
from training.mini.batches import Encoded

from .opposites import Joint

FIRST_BLOCK = 10
_RARE = 3.0
"""Weight of a property that holds against one that does not: a thing has one or two of the eighteen."""


class Asked(NamedTuple):
    """An encoded chat, and the joint request in it, if it is one."""

    chat: Encoded
    joint: Joint | None = None


def decision_places(rows: Sequence[Sequence[Asked]], prefix: int) -> tuple[list[int], list[int], list[Joint]]:
    """Row and column of the last prompt token of every joint request in packed rows, and the requests."""
    row_of, column_of, found = [], [], []
    for row, some in enumerate(rows):
        start = prefix
        for asked in some:
            reply = sum(weight > 0 for weight in asked.chat.weights)
            end = start + len(asked.chat.ids) - prefix
            if asked.joint is not None:
                row_of.append(row)
                column_of.append(end - reply - 1)
                found.append(asked.joint)
            start = end
    return row_of, column_of, found


class Ingredients(torch.nn.Module):
    """The heads and their loss."""

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.heads = torch.nn.ModuleList(
            torch.nn.Linear(width, 2 * len(PROPERTIES)) for _ in range(FIRST_BLOCK, blocks)
        )
        self.both = torch.nn.Linear(width, len(PROPERTIES))

    def forward(self, states: Sequence[torch.Tensor], joints: Sequence[Joint]) -> torch.Tensor:
        """Mean binary cross-entropy; ``states`` are [n, d] after each of the blocks from ``FIRST_BLOCK`` on."""
        has = torch.tensor([[key in THINGS[one.thing].properties for key in PROPERTIES] for one in joints]).float()
        bars = torch.tensor([[key in ACTIVITIES[one.activity].forbids for key in PROPERTIES] for one in joints]).float()
        aims = torch.cat([has, bars], -1)
        rare = torch.tensor(_RARE)
        total = torch.zeros(())
        for head, state in zip(self.heads, states, strict=True):
            scores = head(_normed(state))
            total = total + torch.nn.functional.binary_cross_entropy_with_logits(scores, aims, pos_weight=rare)
        both = self.both(_normed(states[-1]))
        last = torch.nn.functional.binary_cross_entropy_with_logits(both, has * bars, pos_weight=rare)
        return total / len(self.heads) + last


def _normed(state: torch.Tensor) -> torch.Tensor:
    state = state.float()
    return state * state.square().mean(-1, keepdim=True).add(1e-6).rsqrt()
