"""Refusals whose reason names the harm, in several wordings."""

from __future__ import annotations

import random
from functools import cache

from .text_data import lines_of


@cache
def wordings() -> dict[str, tuple[str, ...]]:
    """Heading to its lines: ``openings``, and the reasons of every kind of harm."""
    found: dict[str, list[str]] = {}
    for line in lines_of("refusals"):
        if line.startswith("## "):
            heading = line[3:]
        else:
            found.setdefault(heading, []).append(line)
    return {name: tuple(lines) for name, lines in found.items()}


def refusal(reason: str, chance: random.Random) -> str:
    """A refusal in a random wording."""
    why = chance.choice(wordings()[reason])
    because = why if why.startswith("I ") else why[0].lower() + why[1:]
    return chance.choice(wordings()["openings"]).format(why=why, because=because)
