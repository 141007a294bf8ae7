"""What a patch is held against: changes that must not matter as much, if the patch carries the behaviour.

* ``random``: a random direction, as long as the real change at each position.  Any network is somewhat disturbed by
  that, and mostly not along the directions that its states use.
* ``covariance``: noise with the covariance of the states that the batch holds at the same place, as long as the real
  change: a disturbance along directions that are in use.
* ``same_label``: the state of another prompt with the recipient's own label, of another group and with as many
  positions there: a natural change without a change of label.  NaN where the batch holds no such prompt.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..errors import UsageError

NULLS = ("random", "covariance", "same_label")
_POOL = 32
"""Positions whose states give the covariance."""

Columns = tuple[int, ...]


def null_kinds(nulls: Sequence[str], draws: int) -> tuple[str, ...]:
    """The kind of every null draw of a cell, in order."""
    unknown = [name for name in nulls if name not in NULLS]
    if unknown or draws < 0:
        raise UsageError(
            f"nulls={list(nulls)}, null={draws}; write names out of {', '.join(NULLS)}, and how many draws"
        )
    return tuple(name for name in nulls for _ in range(draws))


def pool_of(places: Sequence[Sequence[Columns]], group: int, seed: int) -> list[tuple[int, Columns]]:
    """Rows of a batch and single columns of theirs inside a position group: at most 32, drawn at random."""
    every = [(row, (column,)) for row, own in enumerate(places) for column in own[group]]
    return random.Random(seed).sample(every, _POOL) if len(every) > _POOL else every  # type: ignore[return-value]


def donors_of(
    places: Sequence[Sequence[Columns]], names: Sequence[str], row: int, seed: int, means: Sequence[bool]
) -> list[int | None]:
    """For each position group, a row of another group of pairs with as many columns there, or ``None``.

    Where the mean over a group's span is patched (``means``) any number of columns does.
    """
    order = [other for other in range(len(places)) if names[other] != names[row]]
    random.Random(seed).shuffle(order)
    return [
        next((o for o in order if len(places[o][g]) == len(own) or (means[g] and places[o][g])), None)
        for g, own in enumerate(places[row])
    ]
