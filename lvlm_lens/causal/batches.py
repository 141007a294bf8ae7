"""Pairs batch by batch: prompts of one batch show as many pictures, and their words are of similar length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..data import Pair


def pictures(pair: Pair) -> tuple[int, int]:
    """How many pictures the two members show."""
    return len(pair.clean.images), len(pair.corrupted.images)


def alike(pairs: Sequence[Pair], numbers: Iterable[int], size: int) -> list[list[int]]:
    """``numbers`` of pairs in batches of at most ``size``; which pair is where depends on nothing else."""
    batches: list[list[int]] = []
    for n in sorted(numbers, key=lambda n: (*pictures(pairs[n]), len(pairs[n].clean.text), n)):
        if batches and len(batches[-1]) < size and pictures(pairs[batches[-1][0]]) == pictures(pairs[n]):
            batches[-1].append(n)
        else:
            batches.append([n])
    return batches
