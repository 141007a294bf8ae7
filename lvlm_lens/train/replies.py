"""Replies the data do not hold but their world implies: the same request under the opposite verdict, and its reasoning.

Of the embedded set everything is known: which thing is shown, which property of it the request cannot bear.  So the
reasoning is exact, and so is the reply that a wrong verdict would give.  Of other sets only what their records say is
used (``warning``, ``reasoning_steps``), and where they say nothing the answer is ``None``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ..data import Sample
from ..data.mini.activities import ACTIVITIES, USE_ACTIVITY
from ..data.mini.intents import HARMFUL_VERBS, KIND_VERBS, TARGETS, intent_answer
from ..data.mini.objects import PROPERTIES, THINGS
from ..evaluate.thinking import split_thinking
from .method import Row

REFUSAL = "Sorry, I cannot help with that."
"""The fixed refusal of the embedded world, and of the control with refused harmless requests."""


UNSAFE, FINE = "It is unsafe.", "It is fine."
"""Verdicts that end the reasoning of the embedded world."""


def _of_the_world(sample: Sample) -> bool:
    return sample.dataset == "mini" and "object" in sample.concepts


def other_reply(sample: Sample) -> str | None:
    """The reply under the opposite verdict; ``None`` where the data do not imply one."""
    if not _of_the_world(sample):
        return None
    thing = THINGS[sample.concepts["object"]]
    part, harmful = sample.meta["part"], sample.harmful == 1
    if part == "describe":
        return f"{REFUSAL} The {thing.name} {PROPERTIES[sample.concepts['property']]}."
    if part == "words":
        verb, target = sample.groups["activity"].split(" ", 1)
        pairs = dict(zip(HARMFUL_VERBS, KIND_VERBS, strict=True))
        swapped = pairs.get(verb) or next(bad for bad, kind in pairs.items() if kind == verb)
        # the wrong verdict keeps the verb that was asked for
        reply = intent_answer(swapped, TARGETS.index(target))
        return reply.replace(f" {swapped} ", f" {verb} ")
    activity = USE_ACTIVITY if part == "picture" else ACTIVITIES[sample.concepts["activity"]]
    if harmful:
        return f"Yes, the {thing.name} {activity.comfort}."
    main = sample.concepts["property"]
    return REFUSAL if main not in PROPERTIES else f"{REFUSAL} The {thing.name} {PROPERTIES[main]}."


def described(data: Sequence[Sample]) -> list[Row]:
    """Helpful rows of the embedded set: what is this?  One a picture."""
    made: dict[tuple[str, ...], Row] = {}
    for sample in data:
        if not _of_the_world(sample):
            continue
        thing = THINGS[sample.concepts["object"]]
        key = tuple(source.key for source in sample.images) or (thing.name,)
        asked = "What is this?" if sample.images else f"Here is {thing.a}. What is this?"
        harmless = replace(sample, text=asked, label_text="safe", label_joint="safe")
        made.setdefault(key, Row(harmless, f"This is {thing.a}.", name=f"describe-{sample.id}"))
    return list(made.values())


def other_steps(sample: Sample) -> list[str]:
    """Reasoning of the embedded set that ends at the opposite verdict."""
    steps = _world_steps(sample)
    return [*steps[:2], FINE if sample.harmful else UNSAFE]


def reasoning_steps(sample: Sample) -> list[str]:
    """The reference reasoning of a sample, a sentence a step; empty where the data hold none.

    For the embedded set: what is shown, what is true of it, and what that means for the request.
    """
    if _of_the_world(sample):
        return _world_steps(sample)
    if steps := sample.meta.get("reasoning_steps"):
        return [str(step).strip() for step in steps]
    told = split_thinking(sample.warning or "")
    return sentences(told.think or told.final)


def _world_steps(sample: Sample) -> list[str]:
    """What it is, what is true of it, the verdict: in sentences that ``mini`` says itself.

    What it never wrote in its own training ("refused", "answered") no adapter makes it spell (:mod:`.msr_align`).
    """
    thing = THINGS[sample.concepts["object"]]
    shown, verdict = f"This is {thing.a}.", UNSAFE if sample.harmful else FINE
    if sample.meta["part"] == "words":
        verb, target = sample.groups["activity"].split(" ", 1)
        whom = target.replace("my ", "your ")
        return [shown, f"It would harm {whom}." if sample.harmful else f"It is good to {verb} {whom}.", verdict]
    if sample.harmful:
        return [shown, sample.warning or "", verdict]
    main = sample.concepts["property"]
    told = PROPERTIES.get(main, f"is a kind of {thing.kind}")
    return [shown, f"The {thing.name} {told}.", verdict]


def sentences(text: str) -> list[str]:
    """Sentences of a text, in order."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part.strip()]
