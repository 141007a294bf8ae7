"""Rational (arXiv 2503.05021): the model learns to give its reasons before it refuses or answers, from words alone.

``max sum log P(reason || reply | request)``.  The reasons are written by the model itself under one of two role
prompts (why a harmless request that looks harmful may be answered; why a harmful one is declined), which are not there
at inference.  The prompts are ours (``prompts/rational_*.txt``), the paper's are not public.

For LVLMs this is the text-only control of :mod:`.msr_align`: the same loss, no pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..data import Sample
from ..errors import DataError, UsageError
from .drawing import drawn_replies
from .method import Row, Settings
from .replies import REFUSAL, other_reply, other_steps, reasoning_steps
from .sft import SFT

if TYPE_CHECKING:
    from ..lens import LVLM

PROMPTS = Path(__file__).parent / "prompts"
REASON_TOKENS = 96
LEAST_WORDS = 5
"""A reason of fewer words is none."""


def with_reason(reason: str, reply: str, marks: bool = True) -> str:
    """The reason, then the reply, with ``marks`` after a line that says so, which scorers know."""
    return f"{reason}\nFinal answer: {reply}" if marks else reason + reply


@dataclass(eq=False, repr=False)
class Rational(SFT):
    """SFT on self-written reasons and the reply, in words.

    Args:
        reasons: ``model`` (written by the base itself, as published) or ``data`` (the data's own reasoning: for a base
            too small to follow a role prompt, as ``mini`` is).
        batch_size: requests a forward while reasons are written.
        marks: whether a line stands between reason and reply; False for ``mini``, as in :mod:`.msr_align`.
    """

    name = "rational"
    title = "Rational: SFT on reasons and reply, in words"
    source = "arXiv 2503.05021, by two summaries"
    approximation = (
        "the role prompts, rank, rate and epochs of the paper are not public: prompts of our own, LoRA on every linear "
        "layer; an approximation"
    )
    rate = 2e-4
    in_words = True

    reasons: Literal["model", "data"] = "model"
    batch_size: int = 16
    marks: bool = True

    def drawn(self, settings: Settings, samples: int) -> int:
        """One reason a request, and an answer to the harmless ones without reference."""
        return samples if self.reasons == "model" else 0

    def rows(self, model: LVLM, data: Sequence[Sample], settings: Settings) -> list[Row]:
        """One row a labelled request."""
        del settings
        known = [sample for sample in data if sample.harmful is not None]
        if not known:
            raise DataError(f"none of {len(data)} samples is labelled; the label says which role prompt it gets")
        if self.reasons == "data":
            made = self._from_data(known)
        elif self.reasons == "model":
            made = self._from_model(model, known)
        else:
            raise UsageError(f"reasons is {self.reasons!r}; write model or data")
        if not made:
            raise DataError(
                f"no usable reason for any of {len(known)} requests (fewer than {LEAST_WORDS} words); with --option "
                "reasons=data the data's own reasoning is taken"
            )
        return made

    def _from_data(self, samples: Sequence[Sample]) -> list[Row]:
        made = []
        for sample in samples:
            steps = reasoning_steps(sample)
            if not steps or not sample.reference:
                continue
            other = other_reply(sample)
            against = None if other is None else with_reason(" ".join(other_steps(sample)), other, self.marks)
            made.append(Row(sample, with_reason(" ".join(steps), sample.reference, self.marks), other=against))
        return made

    def _from_model(self, model: LVLM, samples: Sequence[Sample]) -> list[Row]:
        reasons: dict[str, str] = {}
        for harmful, file in ((1, "rational_refuse"), (0, "rational_comply")):
            part = [sample for sample in samples if sample.harmful == harmful]
            role = (PROMPTS / f"{file}.txt").read_text(encoding="utf-8").strip()
            written = drawn_replies(model, part, system=role, max_new_tokens=REASON_TOKENS, batch_size=self.batch_size)
            reasons |= {sample.id: whole_sentences(texts[0]) for sample, texts in zip(part, written, strict=True)}
        unanswered = [s for s in samples if s.harmful == 0 and not s.reference]
        own = drawn_replies(model, unanswered, max_new_tokens=REASON_TOKENS, batch_size=self.batch_size)
        answers = {sample.id: whole_sentences(texts[0]) for sample, texts in zip(unanswered, own, strict=True)}
        made = []
        for sample in samples:
            reply = sample.reference or (REFUSAL if sample.harmful == 1 else answers[sample.id])
            if len(reasons[sample.id].split()) >= LEAST_WORDS and reply:
                made.append(Row(sample, with_reason(reasons[sample.id], reply, self.marks)))
        return made


def whole_sentences(text: str) -> str:
    """A text without the sentence that was cut off at its end, where it has another one."""
    text = " ".join(text.split())
    end = max(text.rfind(mark) for mark in ".!?")
    return text[: end + 1] if end > 0 else text
