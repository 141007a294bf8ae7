"""Controls: the same method and the same budget on rows from which safety cannot be learnt, or only something else.

* ``benign_refusals``: harmless requests only; two in seven get one fixed refusal (arXiv 2504.10000 takes 2,000 refused
  and 5,000 answered).  What falls in attack success here comes from refusing more, not from knowing better.
* ``shuffled``: the verdicts are dealt anew among the rows.  Where the data imply the reply under the other verdict a
  row gets that one, so that only the verdict is wrong; elsewhere the replies change places.
* ``text_only``: pictures said in words (done where samples are read, :mod:`.running`).

A fourth control changes the requests of the evaluation and not the rows: :func:`one_word_swap` (arXiv 2503.11832).
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ..data import Sample
from ..errors import DataError
from .method import Row
from .replies import REFUSAL

REFUSED_SHARE = 2 / 7


def controlled(control: str, rows: Sequence[Row], seed: int) -> list[Row]:
    """The rows under a control; ``none`` and ``text_only`` leave them.

    Raises :class:`DataError` where the data do not allow the control.
    """
    if control == "benign_refusals":
        return _benign(rows, seed)
    if control == "shuffled":
        return _shuffled(rows, seed)
    return list(rows)


def _benign(rows: Sequence[Row], seed: int) -> list[Row]:
    harmless = [row for row in rows if row.sample.harmful == 0]
    if len(harmless) < 2:
        raise DataError(f"{len(harmless)} of {len(rows)} rows are labelled harmless; this control needs at least 2")
    chance = random.Random(f"benign {seed}")
    refused = set(chance.sample(range(len(harmless)), max(1, round(REFUSED_SHARE * len(harmless)))))
    made = []
    for number, row in enumerate(harmless):
        if number not in refused:
            made.append(row)
        else:  # of a preference the refusal becomes the better reply
            worse = None if row.worse is None else row.reply
            made.append(replace(row, sample=_labelled(row.sample, "unsafe"), reply=REFUSAL, worse=worse, other=None))
    return made


def _shuffled(rows: Sequence[Row], seed: int) -> list[Row]:
    chance = random.Random(f"shuffled {seed}")
    if any(row.worse is not None for row in rows):  # a preference's label is its direction
        flips = [number % 2 == 1 for number in range(len(rows))]
        chance.shuffle(flips)
        return [
            replace(row, reply=row.worse or "", worse=row.reply) if flip else row
            for row, flip in zip(rows, flips, strict=True)
        ]
    verdicts = [row.sample.label_joint for row in rows]
    dealt = list(verdicts)
    chance.shuffle(dealt)
    if any(row.other is not None for row in rows):  # the others have no verdict to deal (what is this?)
        return [
            replace(row, reply=row.other, other=row.reply, sample=_labelled(row.sample, new))
            if row.other is not None and new != old
            else row
            for row, old, new in zip(rows, verdicts, dealt, strict=True)
        ]
    replies = [row.reply for row in rows]
    chance.shuffle(replies)
    return [
        replace(row, reply=reply, sample=_labelled(row.sample, new))
        for row, reply, new in zip(rows, replies, dealt, strict=True)
    ]


def _labelled(sample: Sample, label: str) -> Sample:
    return replace(sample, label_joint=label)  # type: ignore[arg-type]


def first_word(text: str) -> str:
    """The first word of a request, in small letters."""
    found = re.search(r"[^\W\d_]+", text)
    return found[0].lower() if found else ""


def one_word_swap(train: Sequence[Sample], test: Sequence[Sample]) -> tuple[list[Sample], dict[str, str]]:
    """Test requests with their first word changed for the one that training tied most to the other verdict.

    Of the words that begin training requests, the one with the highest smoothed log-odds of a harmless request replaces
    the first word of harmful test requests, and the other way round (arXiv 2503.11832: a fine-tuned model that learnt
    the word and not the danger turns over).  [own reading of its attack: first words, chosen by counts]

    Returns:
        The changed samples (ids, pictures, labels as they were), and the word that was put into ``harmful`` and into
        ``harmless`` ones.

    Raises :class:`DataError` where training has not both verdicts.
    """
    counts = {label: Counter(first_word(s.text) for s in train if s.harmful == label) for label in (0, 1)}
    if not counts[0] or not counts[1]:
        raise DataError("the training requests have one verdict only, so no word is tied to either")
    words = sorted({*counts[0], *counts[1]} - {""})
    total = {label: sum(counts[label].values()) + len(words) for label in (0, 1)}
    odds = {
        word: math.log((counts[0][word] + 1) / total[0]) - math.log((counts[1][word] + 1) / total[1]) for word in words
    }
    kind, bad = max(words, key=lambda word: odds[word]), min(words, key=lambda word: odds[word])
    changed = []
    for sample in test:
        word = kind if sample.harmful == 1 else bad
        text = re.sub(r"[^\W\d_]+", word.capitalize(), sample.text, count=1)
        changed.append(replace(sample, text=text))
    return changed, {"harmful": kind, "harmless": bad}
