"""Which samples a limit keeps: one rule, so that ``--limit 100`` means the same samples in every command.

Groups are put in an order drawn with the seed and taken whole, one that brings the rarer class first as long as harmful
and harmless samples differ in number; a group that would go over the limit is left out.  The samples keep the order
of their data set.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence

from ..errors import UsageError
from .dataset import Dataset
from .groups import groups_of, with_groups
from .sample import Sample

_SIDE = {0: -1, 1: 1, None: 0}


def limited(data: Dataset, limit: int | None, seed: int = 0) -> Dataset:
    """At most ``limit`` samples of a data set; ``None`` keeps all.  See :func:`limited_rows`."""
    if limit is None or limit >= len(data):
        return data
    kept = set(limited_rows(data.samples, limit, seed))
    return Dataset((s for at, s in enumerate(data) if at in kept), data.name, data.problems, data.notes)


def limited_rows(samples: Sequence[Sample], limit: int | None, seed: int = 0) -> list[int]:
    """Rows of at most ``limit`` samples, ascending: whole groups, both classes, the same for the same seed.

    Where not even the smallest group fits, its first samples are taken.

    Raises:
        UsageError: ``limit`` below 1.
    """
    if limit is None or limit >= len(samples):
        return list(range(len(samples)))
    if limit < 1:
        raise UsageError(f"limit is {limit}; give at least 1")
    members: dict[str, list[int]] = {}
    for row, name in enumerate(groups_of(with_groups(samples)).tolist()):
        members.setdefault(name, []).append(row)
    names = sorted(members)
    random.Random(seed).shuffle(names)
    lean = {name: sum(_SIDE[samples[row].harmful] for row in members[name]) for name in names}
    waiting = {side: deque[int]() for side in (-1, 0, 1)}  # places in the drawn order, by the class they bring more of
    for place, name in enumerate(names):
        waiting[(lean[name] > 0) - (lean[name] < 0)].append(place)
    kept: list[int] = []
    balance = 0  # harmful minus harmless
    while True:
        for queue in waiting.values():
            while queue and len(kept) + len(members[names[queue[0]]]) > limit:
                queue.popleft()  # the room only shrinks: it will not fit later either
        heads = {side: queue[0] for side, queue in waiting.items() if queue}
        if not heads:
            break
        even = {side: place for side, place in heads.items() if side * balance <= 0}
        side, place = min((even or heads).items(), key=lambda item: item[1])
        waiting[side].popleft()
        kept += members[names[place]]
        balance += lean[names[place]]
    return sorted(kept) or min(members.values(), key=len)[:limit]
