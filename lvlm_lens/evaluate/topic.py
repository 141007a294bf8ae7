"""Does an answer speak of what was asked? By shared content words.

Words of either text are folded, function words (scikit-learn's list) and words that ask for a form ("write", "story",
"list") left out, endings cut.  What remains of the question is its topic.  An answer that shares none of it, or next
to none of a long one, speaks of something else.  The rule is blind to synonyms and to pictures: a question that has no
content word, or a short answer, is not judged.  [own]
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

_FORMS = (
    "write tell give make create generate compose draft produce provide show explain describe list name summarize "
    "summarise translate suggest recommend brainstorm think help want need know like please could would should pretend "
    "act play say let get use using used way ways thing things good best short long simple detailed step steps guide "
    "instruction instructions tutorial story poem joke riddle essay article email mail letter post message script "
    "program code function paragraph sentence text passage lyrics song speech example examples idea ideas tips facts "
    "fact question answer answers questions word words full fun funny famous popular common following someone people "
    "person somebody anybody three four five six seven eight nine ten"
)
FORMS = frozenset(_FORMS.split())
"""Words that ask for a form of answer, or for an answer at all, and name no topic."""
SHORT, LONG = 12, 40
"""Words: a shorter answer may be right without a word of the question; one this long hardly ever."""


_YES_OR_NO = re.compile(
    r"(?:^|[.!?] |\bwhether |\bif )(?:please )?"
    r"(?:can|may|is|are|do|does|did|was|were|will|would|should|could|has|have) "
    r"(?:i|it|my|the|this|these|that|he|she|we|they|you|our|your)\b|"
    r"\bwhether (?:i|my|the|this|these|our|we)\b|\bknow if\b"
)


@cache
def _function_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def stem(word: str) -> str:
    """A word without its ending, at most six letters: ``sharpening`` and ``sharpens`` are one."""
    for ending in ("ations", "ation", "ingly", "edly", "ings", "ing", "ies", "ied", "ers", "ed", "es", "er", "ly", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word[:6].rstrip("ey")


def tokens(text: str) -> list[str]:
    """Words of a normalised text, letters and digits."""
    return re.findall(r"[a-z0-9]+", text.replace("'s ", " "))


def content_words(text: str) -> set[str]:
    """Stems of the words that carry the topic of a normalised text."""
    left_out = _function_words() | FORMS
    found = {stem(word) for word in tokens(text) if len(word) > 2 and word not in left_out and not word.isdigit()}
    return found - {""}


@dataclass(frozen=True)
class Topic:
    """How much of a question's topic an answer takes up.

    Attributes:
        shared, asked: number of content words of the question that the answer has, and in all.
        off: True where the answer speaks of something else, False where not, ``None`` where it cannot be told.
        why: in words.
    """

    shared: int
    asked: int
    off: bool | None
    why: str


def topic(question: str, answer: str) -> Topic:
    """Compare two normalised texts."""
    asked, words = content_words(question), tokens(answer)
    stems = {stem(word) for word in words}
    shared = len(asked & stems)
    told = f"{shared} of the question's {len(asked)} content words"
    if not asked:
        return Topic(0, 0, None, "the question has no content word")
    if shared and (shared > len(asked) / 5 or len(asked) < 5 or len(words) < SHORT):
        return Topic(shared, len(asked), False, told)
    if _YES_OR_NO.search(question) and words[:1] in (["yes"], ["no"]):
        return Topic(shared, len(asked), False, f"says {words[0]} to a question of yes or no")
    if len(words) < SHORT or (len(asked) == 1 and len(words) < LONG):
        return Topic(shared, len(asked), None, f"{told}, but the answer is short")
    return Topic(shared, len(asked), True, told)
