"""Words of a data set that the tokenizer would read as structure: ``<image>``, ``<|im_end|>``, ``<|assistant|>``.

A prompt is rendered as text and tokenised afterwards, so a special token that stands literally in a user's words ends
the turn, opens another one, or asks for a picture that is not there.  Words are data: such a sample is refused, or,
where asked for, the token is broken up by a space after its first character, which no tokenizer reads as the token.
Markup that is no single token of the tokenizer (``USER:``, ``[INST]`` as plain characters) cannot be told from words
and is left alone.
"""

from __future__ import annotations

import re
from typing import Any


class SpecialText:
    """Finds and escapes literal special tokens of one tokenizer and its processor.

    >>> from lvlm_lens.models.tiny import tiny_model
    >>> special = SpecialText(tiny_model("llava")[1].tokenizer)
    >>> special.find("Is <image> a </s> tag?"), special.escape("Is <image> a </s> tag?")
    (['<image>', '</s>'], 'Is < image> a < /s> tag?')
    """

    def __init__(self, tokenizer: Any, processor: Any | None = None) -> None:
        words = {str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special}
        for name in ("image_token", "video_token", "boi_token", "eoi_token"):  # processors expand these in the text
            token = getattr(processor, name, None)
            if isinstance(token, str):
                words.add(token)
        # a token of blanks or of one character would refuse ordinary words, and cannot be broken up
        self.words = sorted((word for word in words if len(word.strip()) > 1), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self.words))) if self.words else None

    def find(self, text: str) -> list[str]:
        """Special tokens that stand in ``text``, each once, in their order."""
        return [] if self._pattern is None else list(dict.fromkeys(self._pattern.findall(text)))

    def escape(self, text: str) -> str:
        """``text`` with a space after the first character of every special token."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
