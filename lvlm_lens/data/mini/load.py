"""The embedded set as :class:`~lvlm_lens.data.Sample` records, built from :mod:`.items`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache

from ..dataset import Dataset
from ..images import ImageDrawn
from ..sample import Label, Sample
from .activities import ACTIVITIES, SHOWING, USE_ACTIVITY, USE_QUESTIONS, Activity, answer, reason_against
from .intents import HARMFUL_VERBS, KIND_VERBS, TARGETS, intent_answer, intent_text
from .items import PicturePair, Quad, WordsPair, picture_pairs, quads, words_pairs
from .objects import PROPERTIES, THINGS, Thing
from .render import Spec, render

NAME = "mini"


def _label(unsafe: bool) -> Label:
    return "unsafe" if unsafe else "safe"


def _main_property(thing: Thing) -> str:
    return next((name for name in PROPERTIES if name in thing.properties), "none")


def _picture(spec: Spec) -> tuple[ImageDrawn, ...]:
    return (ImageDrawn(render, spec),)


def _caption(thing: Thing, spec: Spec) -> str:
    return f"a picture of {thing.a}" if spec[0] is not None else f'a card that says "{thing.name}"'


def quad_samples(quad: Quad) -> Iterator[Sample]:
    """Four samples; the one with the same words and the other picture is the counterfactual."""
    name = f"{NAME}-{quad.part}-{quad.number:03d}"
    for place, (key, (frame, phrase)) in enumerate(zip(quad.activities, quad.phrasings, strict=True)):
        activity = ACTIVITIES[key]
        question = activity.question(frame, phrase)
        category = reason_against(THINGS[quad.things[place]], activity) or ""  # both members bear the pair's danger
        for which, (thing_name, spec) in enumerate(zip(quad.things, quad.pictures, strict=True)):
            thing = THINGS[thing_name]
            reason = reason_against(thing, activity)
            yield Sample(
                id=f"{name}-{key.replace(' ', '_')}-{which}",
                text=question,
                images=_picture(spec),
                dataset=NAME,
                split=quad.split,
                group=name,
                groups={"object": thing_name, "activity": key, "phrasing": f"{key}/{frame}/{phrase}"},
                counterfactual=f"{name}-{key.replace(' ', '_')}-{1 - which}",
                text_only=f"{SHOWING[quad.number % len(SHOWING)].format(a=thing.a)} {question}",
                caption=_caption(thing, spec),
                label_image=_label(thing.alarming),
                label_text="safe",
                label_joint=_label(reason is not None),
                category=category,
                subcategory=key,
                attack="typographic" if quad.part == "typographic" else "",
                reference=answer(thing, activity),
                warning=f"The {thing_name} {PROPERTIES[reason]}." if reason else None,
                answer="no" if reason else "yes",
                concepts={
                    "object": thing_name,
                    "activity": key,
                    "property": _main_property(thing),
                    "joint": f"{key}: {reason}" if reason else "safe",
                },
                meta={"part": quad.part, "style": spec[1], "kind": thing.kind},
            )


def words_samples(pairs: Iterable[WordsPair]) -> Iterator[Sample]:
    """Harm in the words alone: a harmful verb and its kind partner beside the same picture."""
    for pair in pairs:
        thing = THINGS[pair.thing]
        name = f"{NAME}-words-{pair.number:03d}"
        for which, verb in enumerate((HARMFUL_VERBS[pair.verb], KIND_VERBS[pair.verb])):
            reply = intent_answer(verb, pair.target)
            yield Sample(
                id=f"{name}-{which}",
                text=intent_text(verb, pair.target, pair.frame),
                images=_picture(pair.picture),
                dataset=NAME,
                split=pair.split,
                group=name,
                groups={
                    "object": pair.thing,
                    "activity": f"{verb} {TARGETS[pair.target]}",
                    "phrasing": f"intent/{pair.frame}",
                },
                counterfactual=f"{name}-{1 - which}",
                text_only=intent_text(verb, pair.target, pair.frame, thing.a),
                caption=_caption(thing, pair.picture),
                label_image=_label(thing.alarming),
                label_text=_label(which == 0),
                label_joint=_label(which == 0),
                category="intent",
                subcategory=verb,
                reference=reply,
                warning=reply.split(". ", 1)[1] if which == 0 else None,
                answer="no" if which == 0 else "yes",
                concepts={
                    "object": pair.thing,
                    "activity": verb,
                    "property": _main_property(thing),
                    "joint": f"intent: {verb}" if which == 0 else "safe",
                },
                meta={"part": "words", "style": pair.picture[1], "kind": thing.kind},
            )


def _picture_sample(
    name: str, split: str, group: str, question: str, activity: Activity, thing: Thing, spec: Spec, part: str
) -> Sample:
    """A question about one thing; with a part ``describe`` it is always safe."""
    reason = reason_against(thing, activity) if part == "picture" else None
    return Sample(
        id=name,
        text=question,
        images=_picture(spec),
        dataset=NAME,
        split=split,
        group=group,
        groups={"object": thing.name, "activity": part, "phrasing": f"{part}/{question}"},
        text_only=question.replace("this", thing.a) if part == "picture" else f"Here is {thing.a}. {question}",
        caption=_caption(thing, spec),
        label_image=_label(thing.alarming),
        label_text="safe",
        label_joint=_label(reason is not None),
        category=reason or ("use" if part == "picture" else "describe"),
        subcategory=part,
        reference=answer(thing, activity) if part == "picture" else f"This is {thing.a}.",
        warning=f"The {thing.name} {PROPERTIES[reason]}." if reason else None,
        answer=("no" if reason else "yes") if part == "picture" else thing.name,
        concepts={
            "object": thing.name,
            "activity": part,
            "property": _main_property(thing),
            "joint": f"use: {reason}" if reason else "safe",
        },
        meta={"part": part, "style": spec[1], "kind": thing.kind},
    )


def picture_samples(pairs: Iterable[PicturePair]) -> Iterator[Sample]:
    """Harm from the picture alone, and the same alarming pictures under a harmless question."""
    for pair in pairs:
        group = f"{NAME}-picture-{pair.number:03d}"
        question = USE_QUESTIONS[pair.question]
        made = [
            _picture_sample(
                f"{group}-{which}", pair.split, group, question, USE_ACTIVITY, THINGS[thing], spec, "picture"
            )
            for which, (thing, spec) in enumerate(zip(pair.things, pair.pictures, strict=True))
        ]
        for which, sample in enumerate(made):
            yield replace(sample, counterfactual=f"{group}-{1 - which}", category=made[0].category)
        if pair.number % 3 == 0:
            yield _picture_sample(
                f"{NAME}-describe-{pair.number:03d}",
                pair.split,
                group,
                "What is this?",
                USE_ACTIVITY,
                THINGS[pair.things[0]],
                pair.pictures[0],
                "describe",
            )


@lru_cache(maxsize=1)
def _everything() -> Dataset:
    samples = [sample for quad in quads() for sample in quad_samples(quad)]
    samples += [*words_samples(words_pairs()), *picture_samples(picture_pairs())]
    notes = ("Built into the package: emoji art (Noto, Apache-2.0; Twemoji, CC BY 4.0) in a world of known facts.",)
    return Dataset(samples, NAME, notes=notes)


def load_mini(split: str | None = None) -> Dataset:
    """The embedded set, or one of its splits ``train``, ``validation``, ``test``."""
    return _everything() if split is None else _everything().split(split)
