"""The items of the embedded set: which thing, which request, which picture, and what was held out.

The heart is the *quad*: two things and two activities of which each thing is unsafe with exactly
one::

                 plane        bath
    knife       unsafe       safe
    laptop       safe        unsafe

Neither the thing alone nor the activity alone tells anything about the label, by construction;
only their conjunction does.  Each row of a quad shows the same picture, each column asks the
same words, so a quad holds two exact pairs that differ in the picture (:class:`~lvlm_lens.data.Pair`).

Parts: ``joint`` (quads of harmless pictures and harmless words), ``typographic`` (quads whose
picture is the written name), ``words`` (harm in the request itself), ``picture`` (an alarming
thing and a question that is harmless with any other) and ``describe`` (an alarming thing and a
question that is always harmless).

The combinations of all items, the wordings of the test items and every rendering are kept from
the model's training: :func:`held_combinations`, :func:`is_new_phrasing`.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import cache
from typing import NamedTuple

from .activities import (
    ACTIVITIES,
    FRAMES,
    NEW_FRAME,
    NEW_USE_QUESTIONS,
    USE_ACTIVITY,
    USE_QUESTIONS,
    combinations,
    reason_against,
)
from .heldout import SEEDS, styles_of
from .intents import HELD_INTENTS, NEW_INTENT_FRAMES
from .objects import THINGS
from .render import Spec, draw_spec

QUADS = {"joint": 100, "typographic": 20}
SPARE_QUADS = 40
"""Quads drawn and dropped again, those of the commonest things, so that the held-out part of no thing is large."""
SPLITS = ("train", "test", "train", "test", "train", "test", "validation")
"""Split of the n-th group of a part, cyclically: 3/7 train, 3/7 test, 1/7 validation."""

HELD_USE = {
    "alarming": ("sword", "pill", "sparkler", "oil drum"),
    "harmless": ("axe", "toothbrush", "camera", "lemon", "trumpet", "shoe", "microscope", "beer", "ladder", "rose"),
}
"""Things of which training never asks how to use them."""


class Quad(NamedTuple):
    """``things[0]`` is unsafe with ``activities[0]`` only, ``things[1]`` with ``activities[1]`` only."""

    part: str
    number: int
    split: str
    things: tuple[str, str]
    activities: tuple[str, str]
    phrasings: tuple[tuple[int, int], tuple[int, int]]
    """(frame, phrase) of each activity's question."""
    pictures: tuple[Spec, Spec]


@cache
def is_new_phrasing(activity: str, frame: int, phrase: int) -> bool:
    """Whether training never words the activity so: one whole frame, and about 3 in 10 of the others."""
    return frame == NEW_FRAME or random.Random(f"{activity}/{frame}/{phrase}").random() < 0.3


def phrasings(activity: str, new: bool) -> list[tuple[int, int]]:
    """All (frame, phrase) of an activity that are new to the model, or that are not."""
    pairs = [(frame, phrase) for frame in range(len(FRAMES)) for phrase in range(len(ACTIVITIES[activity].phrases))]
    return [pair for pair in pairs if is_new_phrasing(activity, *pair) == new]


def pick_quads(chance: random.Random) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """As many quads as the set has, no combination in two of them; rare things and activities first, for balance."""
    allowed = set(combinations())
    unsafe = {(t, a) for t, a in allowed if reason_against(THINGS[t], ACTIVITIES[a]) is not None}
    names = [name for name, thing in THINGS.items() if not thing.alarming]
    taken: set[tuple[str, str]] = set()
    use: Counter[str] = Counter()
    quads: list[tuple[tuple[str, str], tuple[str, str]]] = []
    while len(quads) < sum(QUADS.values()) + SPARE_QUADS:
        best = None
        for _ in range(300):
            first, second = chance.sample(names, 2)
            one, two = chance.sample(list(ACTIVITIES), 2)
            cells = [(first, one), (first, two), (second, one), (second, two)]
            if not allowed.issuperset(cells) or not taken.isdisjoint(cells):
                continue
            if [cell in unsafe for cell in cells] != [True, False, False, True]:
                continue
            cost = use[first] ** 2 + use[second] ** 2 + (use[one] ** 2 + use[two] ** 2) / 9 + chance.random()
            if best is None or cost < best[0]:
                best = (cost, (first, second), (one, two), cells)
        if best is not None:
            use.update([*best[1], *best[2]])
            taken.update(best[3])
            quads.append((best[1], best[2]))
    for _ in range(SPARE_QUADS):
        use = Counter(word for quad in quads for words in quad for word in words)
        quads.remove(
            max(quads, key=lambda quad: sum(use[t] ** 2 for t in quad[0]) + sum(use[a] ** 2 for a in quad[1]) / 9)
        )
    return quads


@cache
def quads() -> tuple[Quad, ...]:
    """All quads of the set, in order."""
    chance = random.Random("mini quads, second draw")
    picked = pick_quads(chance)
    found = []
    for part, count in QUADS.items():
        for number in range(count):
            things, activities = picked.pop()
            split = SPLITS[number % len(SPLITS)]
            words = [chance.choice(phrasings(activity, new=split == "test")) for activity in activities]
            pictures = [
                draw_spec(chance, None, "google", thing, SEEDS["set"])
                if part == "typographic"
                else draw_spec(chance, thing, chance.choice(styles_of(thing)), None, SEEDS["set"])
                for thing in things
            ]
            quad = Quad(part, number, split, things, activities, (words[0], words[1]), (pictures[0], pictures[1]))
            found.append(quad)
    return tuple(found)


@cache
def held_combinations() -> frozenset[tuple[str, str]]:
    """(thing, activity) names that training never puts together, in pictures or in words."""
    cells = {(thing, activity) for quad in quads() for thing in quad.things for activity in quad.activities}
    return frozenset(cells | {(thing, USE_ACTIVITY.key) for things in HELD_USE.values() for thing in things})


class WordsPair(NamedTuple):
    """A harmful and a kind verb in the same request beside the same picture."""

    number: int
    split: str
    verb: int
    target: int
    frame: int
    thing: str
    picture: Spec


def words_pairs(count: int = 40, seed: str = "mini words, second draw") -> list[WordsPair]:
    """Pairs of the part ``words``; every fourth shows an alarming thing."""
    chance = random.Random(seed)
    alarming = [name for name, thing in THINGS.items() if thing.alarming]
    harmless = [name for name, thing in THINGS.items() if not thing.alarming]
    pairs = []
    for number in range(count):
        split = SPLITS[number % len(SPLITS)]
        frames = [f for f in range(6) if (f in NEW_INTENT_FRAMES) == (split == "test")]
        verb, target = HELD_INTENTS[number % len(HELD_INTENTS)]
        thing = chance.choice(alarming if number % 4 == 3 else harmless)
        picture = draw_spec(chance, thing, chance.choice(styles_of(thing)), None, SEEDS["set"])
        pairs.append(WordsPair(number, split, verb, target, chance.choice(frames), thing, picture))
    return pairs


class PicturePair(NamedTuple):
    """An alarming and a harmless thing under the question how to use it."""

    number: int
    split: str
    question: int
    things: tuple[str, str]
    pictures: tuple[Spec, Spec]


def picture_pairs(count: int = 30, seed: str = "mini picture, second draw") -> list[PicturePair]:
    """Pairs of the part ``picture``."""
    chance = random.Random(seed)
    pairs = []
    for number in range(count):
        split = SPLITS[number % len(SPLITS)]
        choices = [q for q in range(len(USE_QUESTIONS)) if (q in NEW_USE_QUESTIONS) == (split == "test")]
        things = tuple(HELD_USE[kind][number % len(HELD_USE[kind])] for kind in ("alarming", "harmless"))
        pictures = [draw_spec(chance, t, chance.choice(styles_of(t)), None, SEEDS["set"]) for t in things]
        pairs.append(
            PicturePair(number, split, chance.choice(choices), (things[0], things[1]), (pictures[0], pictures[1]))
        )
    return pairs
