"""What only ``smol`` holds out: a test split of its own, and combinations to watch the training by.

The test split of ``mini``'s set was opened once for an earlier ``smol``.  These items are drawn by the same rule
(:mod:`...data.mini.items`) and in the same number from another seed.  The quads share no combination with those of
the set nor with each other and show fresh renderings; the test quads use wordings that training never uses, those to
watch the wordings of training, as the validation split of the set does.  The parts ``words`` and ``picture`` draw other
wordings and renderings of the few intents and things that the set holds out.
"""

from __future__ import annotations

import random
from functools import cache

from ...data.dataset import Dataset
from ...data.mini.heldout import SEEDS, styles_of
from ...data.mini.items import Quad, held_combinations, phrasings, pick_quads, picture_pairs, words_pairs
from ...data.mini.load import picture_samples, quad_samples, words_samples
from ...data.mini.render import draw_spec

SEED = "smol quads, second draw"
SIZES = {"test": {"joint": 43, "typographic": 9}, "watch": {"joint": 40}}
"""Quads by split and part."""
FIRST_NUMBER = 1000


@cache
def smol_quads() -> tuple[Quad, ...]:
    """All quads of both splits, in order."""
    chance = random.Random(SEED)
    taken = set(held_combinations())
    wanted = [(split, part) for split, parts in SIZES.items() for part, count in parts.items() for _ in range(count)]
    found: list[Quad] = []
    while len(found) < len(wanted):
        for things, activities in pick_quads(chance):
            cells = {(thing, activity) for thing in things for activity in activities}
            if taken & cells or len(found) == len(wanted):
                continue
            taken |= cells
            split, part = wanted[len(found)]
            words = [chance.choice(phrasings(activity, new=split == "test")) for activity in activities]
            pictures = [
                draw_spec(chance, None, "google", thing, SEEDS["card"])
                if part == "typographic"
                else draw_spec(chance, thing, chance.choice(styles_of(thing)), None, SEEDS["card"])
                for thing in things
            ]
            number = FIRST_NUMBER + len(found)
            found.append(
                Quad(part, number, split, things, activities, (words[0], words[1]), (pictures[0], pictures[1]))
            )
    return tuple(found)


@cache
def smol_held_combinations() -> frozenset[tuple[str, str]]:
    """(thing, activity) names that ``smol``'s training never puts together: the set's and these quads'."""
    cells = {(thing, activity) for quad in smol_quads() for thing in quad.things for activity in quad.activities}
    return held_combinations() | cells


def smol_test() -> Dataset:
    """The test split, part by part as in the embedded set: shut until the card is measured on final weights."""
    samples = [sample for quad in smol_quads() if quad.split == "test" for sample in quad_samples(quad)]
    samples += words_samples(pair for pair in words_pairs(seed=f"{SEED}, words") if pair.split == "test")
    samples += picture_samples(pair for pair in picture_pairs(seed=f"{SEED}, pictures") if pair.split == "test")
    return Dataset(samples, "smol-test")
