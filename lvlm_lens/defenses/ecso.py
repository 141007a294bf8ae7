"""ECSO (arXiv 2403.09572): eyes closed, safety on.

The model answers; it is asked whether its answer is harmful; where it says yes, it describes the
picture for the question and answers again from the description, without the picture.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from ..data import Sample
from .base import Defense, Guarded, filled, prompt_text
from .prompting import OWN_WORDS

_YES = re.compile(r"^\W*(yes|harmful|unsafe|true)\b", re.IGNORECASE)
_NO = re.compile(r"^\W*(no|not harmful|harmless|safe|false)\b", re.IGNORECASE)


def says_yes(reply: str) -> bool | None:
    """Yes, no, or ``None`` where the reply begins with neither."""
    if _YES.match(reply):
        return True
    return False if _NO.match(reply) else None


@dataclass(eq=False, repr=False)
class ECSO(Defense):
    """Answer, check, and answer again from words where the check says harmful.

    A check that answers neither yes nor no is counted (``guarded.failures``) and the first answer stands.

    Args:
        check_file, describe_file, answer_file: prompts in place of the package's.
        check_tokens, describe_tokens: longest check and description.
    """

    name = "ecso"
    needs = frozenset({"pictures"})
    approximation = OWN_WORDS.replace("prompt_file", "check_file, describe_file, answer_file")
    source = "arXiv 2403.09572"

    check_file: str | Path | None = None
    describe_file: str | Path | None = None
    answer_file: str | Path | None = None
    check_tokens: int = 8
    describe_tokens: int = 48

    def answer(self, guarded: Guarded, samples: list[Sample], max_new_tokens: int, batch_size: int) -> list[str]:
        """Final answers."""
        inner = guarded.inner
        answers = inner.generate(samples, max_new_tokens=max_new_tokens, batch_size=batch_size)
        check, describe, again = (
            prompt_text(name, file)
            for name, file in (
                ("ecso_check", self.check_file),
                ("ecso_describe", self.describe_file),
                ("ecso_answer", self.answer_file),
            )
        )
        asked = [
            replace(s, text=filled(check, question=s.text, answer=a)) for s, a in zip(samples, answers, strict=True)
        ]
        verdicts = [says_yes(v) for v in inner.generate(asked, self.check_tokens, batch_size)]
        for verdict in verdicts:
            if verdict is None:
                guarded.count_failure("check not answered by yes or no")
        unsafe = [i for i, (v, s) in enumerate(zip(verdicts, samples, strict=True)) if v and s.images]
        if not unsafe:
            return answers
        few = [replace(samples[i], text=filled(describe, question=samples[i].text)) for i in unsafe]
        captions = inner.generate(few, self.describe_tokens, batch_size)
        words = [
            replace(samples[i], text=filled(again, caption=c, question=samples[i].text), images=())
            for i, c in zip(unsafe, captions, strict=True)
        ]
        safer = inner.generate(words, max_new_tokens, batch_size)
        for i, text in zip(unsafe, safer, strict=True):
            answers[i] = text
        return answers
