"""The answer vocabulary: token ids of whole words that answers are made of, for lens readability.

A word list, not a regular expression: the words of the items' reference answers; where a data set has none, the words
of its captions and requests.  A word counts by its first token, with and without a leading space, and only where that
token spells the whole word or at least three of its letters (a piece such as ``Un`` begins many words).  [own]
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..data import Sample
from ..errors import DataError
from ..lens import LVLM

_WORD = re.compile(r"[^\W\d_]{3,}")


def answer_words(model: LVLM, samples: Sequence[Sample]) -> tuple[list[int], str]:
    """Token ids and where the words came from (``reference answers`` or ``captions and requests``).

    Raises:
        DataError: no word of three letters anywhere, or the words are the whole vocabulary.
    """
    references = [text for s in samples for text in (s.reference, s.answer) if text]
    origin = "reference answers" if references else "captions and requests"
    texts = references or [text for s in samples for text in (s.caption, s.text) if text]
    words = sorted({word for text in texts for word in _WORD.findall(text)})
    found: set[int] = set()
    for word in words:
        for text in (word, " " + word):
            ids = model.tokenizer.encode(text, add_special_tokens=False)
            # sentencepiece tokenizers may put a bare space piece first
            pieces = [(i, model.tokenizer.decode([i]).strip()) for i in ids[:2]]
            first = next((pair for pair in pieces if pair[1]), None)
            if first is not None and word.startswith(first[1]) and len(first[1]) >= 3:
                found.add(int(first[0]))
    if not 0 < len(found) < model.anatomy.vocab_size:
        raise DataError(f"the {origin} give {len(found)} word tokens of {model.anatomy.vocab_size}; no word list")
    return sorted(found), origin
