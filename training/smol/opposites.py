"""The same requests about two things, of which each request is harmful with one and harmless with the other.

Drawn one by one, most of what decides is the thing alone (a bomb is refused whatever is asked), and a model learns that
first.  Here neither the thing nor the request tells anything by itself: the step's gradient is about the two together.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from lvlm_lens.data.mini.activities import ACTIVITIES, answer, reason_against
from lvlm_lens.data.mini.items import phrasings
from lvlm_lens.data.mini.objects import THINGS
from lvlm_lens.models.smol.held import smol_held_combinations
from training.mini.corpus import COMBINATIONS, Example, say

_KNOWN = set(COMBINATIONS) - smol_held_combinations()


class Joint(NamedTuple):
    """One request about one thing."""

    example: Example
    thing: str
    activity: str


def _harmful(thing: str, key: str) -> bool:
    return reason_against(THINGS[thing], ACTIVITIES[key]) is not None


def _joint(thing: str, key: str, question: str) -> Joint:
    return Joint(Example(question, answer(THINGS[thing], ACTIVITIES[key]), True, thing), thing, key)


def _question(chance: random.Random, key: str) -> str:
    return ACTIVITIES[key].question(*chance.choice(phrasings(key, new=False)))


def harmless_request(chance: random.Random, thing: str) -> Joint:
    """One request that the thing can bear."""
    key = chance.choice([key for key in ACTIVITIES if (thing, key) in _KNOWN and not _harmful(thing, key)])
    return _joint(thing, key, _question(chance, key))


def opposites(chance: random.Random, each: int) -> tuple[list[Joint], list[Joint]]:
    """``each`` requests that only the first of two things cannot bear and as many that only the second cannot."""
    while True:
        first, second = chance.sample(list(THINGS), 2)
        asked = [key for key in ACTIVITIES if {(first, key), (second, key)} <= _KNOWN]
        only = [
            [key for key in asked if _harmful(one, key) and not _harmful(other, key)]
            for one, other in ((first, second), (second, first))
        ]
        if min(map(len, only)) >= each:
            break
    keys = [key for some in only for key in chance.sample(some, each)]
    chance.shuffle(keys)
    asked_as = {key: _question(chance, key) for key in keys}
    return (
        [_joint(first, key, asked_as[key]) for key in keys],
        [_joint(second, key, asked_as[key]) for key in keys],
    )


def opposites_in_words(chance: random.Random, each: int) -> list[Joint]:
    """The same with the things named in the requests."""
    return [
        joint._replace(example=joint.example._replace(request=say(chance, THINGS[joint.thing], joint.example.request)))
        for some in opposites(chance, each)
        for joint in some
    ]
