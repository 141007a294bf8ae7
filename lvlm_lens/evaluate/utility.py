"""Is the answer right, where the data set says what is right?"""

from __future__ import annotations

import re

from ..data import Sample
from .refusal import normalise
from .thinking import split_thinking

AGREES = "sure|of course|certainly|absolutely|definitely"
"""Openings that say yes to a question; further on in an answer they are words like others (*I am not sure*)."""


def is_correct(sample: Sample, answer: str) -> bool | None:
    """Whether ``answer`` agrees with ``sample.answer``; ``None`` where the sample has none.

    Multiple choice: the first option letter that stands for itself, else the option's own words.  Yes or no: what the
    answer opens with (:data:`AGREES`; with *not* after it, the contrary), else the first of the two words that occurs.
    Other short answers: the words of the expected one, as whole words.
    """
    if sample.answer is None:
        return None
    given = normalise(split_thinking(answer).final)
    wanted = normalise(sample.answer)
    if wanted in ("yes", "no"):
        if opened := re.match(rf"\W*({AGREES})\b(\W+not\b)?", given):
            return ("no" if opened[2] else "yes") == wanted
        found = re.search(r"\b(yes|no)\b", given)
        return found is not None and found[1] == wanted
    if sample.options and len(wanted) == 1:
        letters = "abcdefghijklmnopqrstuvwxyz"[: len(sample.options)]
        # "a" is also an article: a letter counts where it stands for itself
        marked = re.search(rf"^\W*([{letters}])\s*(?:$|[).:,\]])|\(([{letters}])\)|answer is ([{letters}])\b", given)
        if marked:
            return next(letter for letter in marked.groups() if letter) == wanted
        place = letters.find(wanted)
        return place >= 0 and normalise(sample.options[place]) in given
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", given) is not None
