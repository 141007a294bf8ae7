"""Planted grids of patch effects: one local effect among hundreds of cells, and none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...inference import false_discovery
from ...stats.groups import sign_flip_p
from ...stats.maxt import max_t, smallest_p
from .case import Case, share_of

FLIPS = 2000


def grid_cases(draws: int, seed: int) -> Iterator[Case]:
    """False-discovery control against step-down max-T on the same sign flips."""
    settings = (
        (40, 1, 512, 3.0, 0.9, None), (12, 1, 512, 6.0, 0.9, None), (40, 5, 512, 3.0, None, None),
        (40, 1, 256, 0.0, None, 0.05), (12, 1, 256, 0.0, None, 0.05),
    )  # fmt: skip
    for number, (pairs, size, cells, effect, least, most) in enumerate(settings):
        rng = np.random.default_rng((seed, 6, number))
        groups = np.arange(pairs) // size
        found: list[list[bool]] = [[], []]
        for _ in range(draws if most is not None else max(20, draws // 5)):
            shared = rng.standard_normal((1, pairs))
            values = np.sqrt(0.5) * shared + np.sqrt(0.5) * rng.standard_normal((cells, pairs))
            values[0] += effect
            draw = int(rng.integers(2**31))
            discovered = false_discovery(sign_flip_p(values, groups, FLIPS, draw)) < 0.05
            survived = max_t(values, groups, draws=FLIPS, seed=draw).adjusted < 0.05
            for rule, kept in enumerate((discovered, survived)):
                found[rule].append(bool(kept[0] if effect else kept.any()))
        asked = "the one cell survives" if effect else "any cell survives"
        words = f"{pairs} pairs in {groups[-1] + 1} groups, {cells} cells, effect {effect:g} sd"
        note = f"smallest attainable value {smallest_p(int(groups[-1]) + 1, draws=FLIPS):.2g}"
        yield Case("patch grid", words, asked, share_of(found[0]), share_of(found[1]), least, most, note)


def null_cases(draws: int, seed: int) -> Iterator[Case]:
    """Patches that only disturb, with signs at random: against the mean of signed nulls, and by size."""
    rng = np.random.default_rng((seed, 7))
    old, new = [], []
    for _ in range(draws):
        pairs = 40
        bias = 0.5 * rng.choice([-1, 1])  # a disturbance of this cell has its own direction in the answer
        patch = bias + rng.standard_normal(pairs)
        nulls = 0.5 * rng.choice([-1, 1], (8, 1)) + rng.standard_normal((8, pairs))
        old.append(bool(sign_flip_p(patch - nulls.mean(0), np.arange(pairs), FLIPS)[0] < 0.05))
        size = np.abs(patch)[None] - np.abs(nulls).mean(0)
        new.append(bool(max_t(size, np.arange(pairs), one_sided=True, draws=FLIPS).adjusted[0] < 0.05))
    yield Case(
        "patching null", "40 pairs, patch and nulls disturb equally, each in a direction of its own",
        "the patch beats its null", share_of(old), share_of(new), most=0.05,
        note="a mean of signed nulls cancels; sizes do not",
    )  # fmt: skip
