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
from training.mini.corpus import COMBINATIONS, Example, say

_KNOWN = set(COMBINATIONS)


class Opposites(NamedTuple):
    """Two things and the examples about each, request by request the same."""

    things: tuple[str, str]
    examples: tuple[list[Example], list[Example]]


def _harmful(thing: str, key: str) -> bool:
    return reason_against(THINGS[thing], ACTIVITIES[key]) is not None


def opposites(chance: random.Random, each: int) -> Opposites:
    """``each`` requests that only the first thing cannot bear and as many that only the second cannot."""
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
    questions = [ACTIVITIES[key].question(*chance.choice(phrasings(key, new=False))) for key in keys]
    return Opposites(
        (first, second),
        tuple(  # type: ignore[arg-type]
            [
                Example(question, answer(THINGS[thing], ACTIVITIES[key]), True, thing)
                for key, question in zip(keys, questions, strict=True)
            ]
            for thing in (first, second)
        ),
    )


def opposites_in_words(chance: random.Random, each: int) -> list[Example]:
    """The same with the things named in the requests."""
    found = opposites(chance, each)
    return [
        example._replace(request=say(chance, THINGS[thing], example.request))
        for thing, examples in zip(found.things, found.examples, strict=True)
        for example in examples
    ]
