"""Planted rises: the order of two, and where one begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from ...stats.onset import HALF, order_of, rises
from ...stats.strength import measure_strength
from . import withdrawn
from .case import Case, share_of
from .plant import half_block, plant, sigmoid_rise


@dataclass(frozen=True)
class Two:
    """Two rises: items of each, strengths, lengths, blocks, blocks by which the second comes later."""

    n: int
    strengths: tuple[float, float]
    lengths: tuple[float, float]
    blocks: int
    gap: float = 0.0
    positives: float = 0.5
    group_size: int = 1

    def __str__(self) -> str:
        words = f"{self.n} items, d' {self.strengths[0]:g} and {self.strengths[1]:g}, rises of "
        words += " and ".join(f"{length:g}" for length in dict.fromkeys(self.lengths)) + f" of {self.blocks} blocks"
        words += f", {100 * self.positives:.0f} % positive" if self.positives != 0.5 else ""
        return words + (f", groups of {self.group_size}" if self.group_size > 1 else "")


TIES = (
    Two(300, (2.5, 2.5), (6, 6), 24),
    Two(300, (5, 2.5), (6, 6), 24),
    Two(300, (8, 2.5), (6, 6), 24),
    Two(300, (8, 2), (6, 6), 24),
    Two(900, (8, 2.5), (6, 6), 24),
    Two(100, (8, 2), (6, 6), 24),
    Two(300, (4, 1), (6, 6), 24),
    Two(300, (8, 2), (1, 1), 12),
    Two(300, (8, 2), (12, 12), 12),
    Two(300, (8, 2), (12, 12), 60),
    Two(300, (4, 4), (1, 12), 24),
    Two(300, (8, 2), (6, 6), 24, positives=0.2),
    Two(300, (8, 2), (6, 6), 24, group_size=5),
)
LATER = (
    Two(300, (2.5, 2.5), (6, 6), 24, 3),
    Two(300, (8, 2.5), (6, 6), 24, 3),
    Two(300, (2.5, 8), (6, 6), 24, 3),
    Two(300, (8, 2), (1, 1), 12, 3),
    Two(300, (4, 4), (12, 12), 60, 3),
)
WEAK = (Two(300, (4, 1), (6, 6), 24, 3), Two(300, (8, 2), (12, 12), 60, 3))
"""Described without a target: the weaker signal is one standard deviation, or a twelve-block rise of two."""


def row_rng(seed: int, two: Two) -> np.random.Generator:
    """Chance of one row, whatever other rows there are."""
    return np.random.default_rng((seed, crc32(repr(two).encode())))


def _draw(two: Two, rng: np.random.Generator) -> tuple[int, int, bool]:
    """What the withdrawn rule and the present one say (1, 2 or 0), and whether the present one could tell."""
    centre = two.blocks / 2 - two.gap / 2 + rng.random() - 0.5
    parts = [
        plant(rng, two.n, strength * sigmoid_rise(two.blocks, at, length), two.positives, two.group_size)
        for strength, length, at in zip(two.strengths, two.lengths, (centre, centre + two.gap), strict=True)
    ]
    seed = int(rng.integers(2**31))
    old = [withdrawn.auroc_onsets(part, seed + k)[1] for k, part in enumerate(parts)]
    before = withdrawn.order(old[0], old[1])
    rows = np.concatenate([part.rows for part in parts], 1)
    signs = np.zeros((2, 2 * two.n))
    signs[0, : two.n], signs[1, two.n :] = parts[0].labels, parts[1].labels
    groups = np.concatenate([parts[0].groups, parts[1].groups + two.n])
    fold = np.concatenate([part.fold for part in parts])
    strength = measure_strength(rows, signs, groups, fold, np.repeat([0, 1], two.n), seed)
    one, other = rises(strength, 300, seed)
    found = order_of(one, other)
    return before, found.first, found.told


def order_cases(draws: int, seed: int) -> Iterator[Case]:
    """Ties of unequal strength, and true gaps of three blocks."""
    for two in (*TIES, *LATER, *WEAK):
        rng = row_rng(seed, two)
        found = [_draw(two, rng) for _ in range(draws)]
        before, after, told = (np.array(column) for column in zip(*found, strict=True))
        note = f"told in {100 * told.mean():.0f} %"
        if not two.gap:
            yield Case(
                "order of a tie", str(two), "an order is claimed", share_of(before > 0), share_of(after > 0),
                most=0.05, note=note,
            )  # fmt: skip
        else:
            least = 0.9 if two in LATER else None
            yield Case(
                "three blocks later", str(two), "the right order is found", share_of(before == 1),
                share_of(after == 1), least=least, note=f"{note}; wrong order {(after == 2).sum()}",
            )  # fmt: skip


ONSETS = (
    Two(40, (2.5, 0), (6, 0), 24), Two(100, (2.5, 0), (6, 0), 24), Two(400, (8, 0), (6, 0), 24),
    Two(300, (8, 0), (12, 0), 36), Two(300, (1, 0), (6, 0), 24), Two(300, (4, 0), (1, 0), 12),
    Two(300, (2.5, 0), (6, 0), 24, group_size=5),
)  # fmt: skip


def onset_cases(draws: int, seed: int) -> Iterator[Case]:
    """Coverage of the half-signal block."""
    for one in ONSETS:
        rng = row_rng(seed, one)
        old, new, whole, errors, widths = [], [], [], [[], []], [[], []]  # type: ignore[var-annotated]
        for _ in range(draws):
            centre = one.blocks / 2 + rng.random() - 0.5
            truth = half_block(one.blocks, centre, one.lengths[0])
            part = plant(
                rng, one.n, one.strengths[0] * sigmoid_rise(one.blocks, centre, one.lengths[0]), 0.5, one.group_size
            )
            at, drawn = withdrawn.auroc_onsets(part, int(rng.integers(2**31)))
            low, high = np.nanquantile(drawn, [0.025, 0.975], method="inverted_cdf")
            old.append(low <= np.ceil(truth) <= high)
            errors[0].append(at - np.ceil(truth))
            widths[0].append(high - low)
            strength = measure_strength(part.rows, part.labels[None], part.groups, part.fold, None, 0)
            rise = rises(strength, 300, int(rng.integers(2**31)))[0]
            low, high = rise.interval()
            new.append(low <= truth <= high)
            whole.append(np.ceil(low) <= np.ceil(truth) <= np.ceil(high))
            errors[1].append(rise.at[HALF] - truth)
            widths[1].append(high - low)
        bias = [float(np.nanmedian(rows)) for rows in errors]
        wide = [float(np.median(rows)) for rows in widths]
        setting = f"{one.n} items, d' {one.strengths[0]:g}, a rise of {one.lengths[0]:g} of {one.blocks} blocks"
        setting += f", groups of {one.group_size}" if one.group_size > 1 else ""
        steep = one.lengths[0] <= 1  # a step lies between two blocks: the interval cannot be narrowed
        asked = "the printed whole blocks hold it" if steep else "the interval holds the half-signal block"
        yield Case(
            "onset", setting, asked, share_of(old), share_of(whole if steep else new),
            least=0.9, most=None if steep else 0.98,
            note=f"bias {bias[0]:+.1f} and {bias[1]:+.1f} blocks, width {wide[0]:.1f} and {wide[1]:.1f}; "
            f"printed whole blocks hold it in {100 * np.mean(whole):.0f} %",
        )  # fmt: skip
