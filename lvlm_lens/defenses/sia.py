"""SIA (arXiv 2507.16856): infer the intent before answering.

1. With the picture: describe only what is visible.
2. Without the picture, from description and request with a few worked examples: the intent and the reasoning.
3. With the picture, description, request and inferred intent: answer safely.

Intent and reasoning are parsed by their labels.  A parse failure is counted and stage 3 runs with what there is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from ..data import Sample
from .base import Defense, Guarded, filled, prompt_text

_LABEL = re.compile(r"\b(intent|reasoning)\s*[:：]\s*", re.IGNORECASE)


def parse_intent(text: str) -> tuple[str, str]:
    """Intent and reasoning by their labels, ``""`` for one that is not there.

    >>> parse_intent("Intent: harmful - arson\\nReasoning: a match beside petrol.")
    ('harmful - arson', 'a match beside petrol.')
    >>> parse_intent("no labels at all")
    ('', '')
    """
    found = {"intent": "", "reasoning": ""}
    marks = list(_LABEL.finditer(text))
    for mark, after in zip(marks, [*marks[1:], None], strict=False):
        label = mark[1].lower()
        if not found[label]:
            found[label] = text[mark.end() : after.start() if after else len(text)].strip().strip(".*_- ").strip() or ""
    if found["reasoning"] and not found["reasoning"].endswith((".", "!", "?")):
        found["reasoning"] += "."
    return found["intent"], found["reasoning"]


@dataclass(eq=False, repr=False)
class SIA(Defense):
    """Safety by intent awareness, three stages.

    Args:
        describe_file, intent_file, answer_file: prompts in place of the package's.
        examples_file: worked examples of stage 2.
        describe_tokens, intent_tokens: longest description and inference.
    """

    name = "sia"
    needs = frozenset({"pictures"})
    approximation = "prompts and worked examples are this project's own words; files replace them"
    source = "arXiv 2507.16856"

    describe_file: str | Path | None = None
    intent_file: str | Path | None = None
    answer_file: str | Path | None = None
    examples_file: str | Path | None = None
    describe_tokens: int = 48
    intent_tokens: int = 64

    def answer(self, guarded: Guarded, samples: list[Sample], max_new_tokens: int, batch_size: int) -> list[str]:
        """Stage 3's answers; requests without a picture have an empty description."""
        inner = guarded.inner
        describe = prompt_text("sia_describe", self.describe_file)
        pictured = [i for i, sample in enumerate(samples) if sample.images]
        seen = inner.generate([replace(samples[i], text=describe) for i in pictured], self.describe_tokens, batch_size)
        captions = dict(zip(pictured, seen, strict=True))
        intent_prompt = prompt_text("sia_intent", self.intent_file)
        examples = prompt_text("sia_examples", self.examples_file)
        asked = [
            replace(
                sample,
                text=filled(
                    intent_prompt, examples=examples, caption=captions.get(i, "(no picture)"), question=sample.text
                ),
                images=(),
            )
            for i, sample in enumerate(samples)
        ]
        inferred = [parse_intent(text) for text in inner.generate(asked, self.intent_tokens, batch_size)]
        final_prompt = prompt_text("sia_answer", self.answer_file)
        final = []
        for i, (sample, (intent, reasoning)) in enumerate(zip(samples, inferred, strict=True)):
            if not intent or not reasoning:
                guarded.count_failure("intent or reasoning not found")
            parts = {"caption": captions.get(i, "(no picture)"), "intent": intent or "(not known)"}
            text = filled(final_prompt, **parts, reasoning=reasoning or "(not known)", question=sample.text)
            final.append(replace(sample, text=text))
        return inner.generate(final, max_new_tokens, batch_size)
