"""The contrast data of ``smol-text``: requests from the readable frames in ``frames/``, split by frame.

Harmless requests with alarming words stand beside harmful ones in plain or alarming words.  One
line in ten of each file of frames and three wordings of "how do I" are held out for validation.
What is drawn for a line depends on that line only, so a new line changes nothing about the others.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

FRAMES = Path(__file__).parent / "frames"

WORDINGS = (
    "How do I {x}?",
    "How can I {x}?",
    "What is the best way to {x}?",
    "Tell me how to {x}.",
    "Explain how to {x}.",
    "I want to {x}. What should I do?",
    "Give me tips on how to {x}.",
    "Help me {x}.",
    "What do I need to {x}?",
    "Can you show me how to {x}?",
    "Write a short guide on how to {x}.",
    "Give me step-by-step instructions to {x}.",
    "Make a plan to {x}.",
)
NEW_WORDINGS = (
    "What are the steps to {x}?",
    "Is there an easy way to {x}?",
    "Please guide me, I would like to {x}.",
)
"""Wordings that training never uses."""

PER_FRAME = 6
"""At most so many values of a frame's slots."""


class Request(NamedTuple):
    """One request: ``reason`` is why it is refused, or ``None`` when it is harmless."""

    text: str
    reason: str | None
    kind: str
    """Where it comes from: ``contrast``, or the heading in the file of frames."""
    split: str
    """``train`` or ``validation``."""


def lines_of(name: str) -> list[str]:
    """The lines of a file of frames, without comments."""
    lines = (FRAMES / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("# ")]


def slots() -> dict[str, list[str]]:
    """The values of every slot."""
    pairs = (line.split(":", 1) for line in lines_of("slots"))
    return {name.strip(): [value.strip() for value in values.split(";")] for name, values in pairs}


def filled(frame: str, table: dict[str, list[str]]) -> list[str]:
    """The frame with its slots filled: one text without a slot, else at most ``PER_FRAME``."""
    names = [name for name in table if "{" + name + "}" in frame]
    if not names:
        return [frame]
    chance = random.Random(frame)
    found: dict[str, None] = {}
    for _ in range(4 * PER_FRAME):
        text = frame
        for name in names:
            text = text.replace("{" + name + "}", chance.choice(table[name]))
        found[text] = None
    return list(found)[:PER_FRAME]


def _split(line: str) -> str:
    return "validation" if random.Random(f"split {line}").random() < 0.1 else "train"


def contrasts() -> Iterator[Request]:
    """Both sides of every verb, in two wordings each (three for the side with fewer objects)."""
    for line in lines_of("contrasts"):
        verb, reason, harmful, harmless = (cell.strip() for cell in line.split("|"))
        split = _split(verb)
        wordings = NEW_WORDINGS if split == "validation" else WORDINGS
        for objects, why, each in ((harmful, reason, 3), (harmless, None, 2)):
            for thing in objects.split(";"):
                phrase = verb.replace("_", thing.strip()) if "_" in verb else f"{verb} {thing.strip()}"
                for wording in random.Random(phrase).sample(wordings, min(each, len(wordings))):
                    yield Request(wording.format(x=phrase), why, "contrast", split)


def listed(name: str) -> Iterator[Request]:
    """The requests of ``harmless`` or ``harmful``; in the latter a heading is ``## kind | reason``."""
    table = slots()
    heading, why = "", None
    for line in lines_of(name):
        if line.startswith("## "):
            heading, _, reason = (cell.strip() for cell in line[3:].partition("|"))
            why = reason or None
            continue
        for text in filled(line, table):
            yield Request(text, why, heading, _split(line))


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9']+", text.lower()))


def too_close(text: str, measured_on: list[frozenset[str]]) -> bool:
    """Whether a request shares seven in ten of its words (Jaccard) with one that the model is measured on."""
    words = _words(text)
    return any(len(words & other) >= 0.7 * len(words | other) for other in measured_on)


def apart_from(some: list[Request], prompts: Sequence[str]) -> list[Request]:
    """The requests that are not :func:`too_close` to any of ``prompts``."""
    measured_on = [_words(prompt) for prompt in prompts]
    return [request for request in some if not too_close(request.text, measured_on)]


def requests(seed: int = 0) -> list[Request]:
    """All requests, harmless and harmful, in a shuffled order without repeats."""
    found: dict[str, Request] = {}
    for request in [*contrasts(), *listed("harmless"), *listed("harmful")]:
        found.setdefault(request.text, request)
    some = list(found.values())
    random.Random(seed).shuffle(some)
    return some
