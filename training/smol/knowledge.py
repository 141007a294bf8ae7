"""Questions about a thing that the language model answers by itself, so that it keeps talking about what it sees.

Told in words the thing is named ("What is a rose used for?"); the base's own answer then stands
beside the picture under the same question with "this".  Nothing of the activities of ``mini`` is in them.
"""

from __future__ import annotations

import random

from lvlm_lens.data.mini.objects import THINGS
from training.mini.corpus import Draw, Example

QUESTIONS = (
    "What is {x} used for?",
    "Where would I usually find {x}?",
    "Tell me something interesting about {x}.",
    "What does {x} look like?",
    "Write a short sentence about {x}.",
)
EACH = 2
"""Questions asked of each thing."""


def asked() -> list[tuple[str, str, str]]:
    """(thing, question in words, question about a picture) of every thing, in a fixed order."""
    found = []
    for name, thing in THINGS.items():
        for question in random.Random(f"knowledge {name}").sample(QUESTIONS, EACH):
            found.append((name, question.format(x=thing.a), question.format(x="this")))
    return found


class Knowledge:
    """Draws one of the questions with the answer that the base gave in words."""

    def __init__(self, voice: dict[str, str]) -> None:
        self.known = [(name, shown, voice[told]) for name, told, shown in asked() if told in voice]

    def __call__(self, chance: random.Random) -> Draw:
        """One example; its answer was cut, so it does not end the turn."""
        name, question, reply = chance.choice(self.known)
        return Draw(name, Example(question, reply, False, name))
