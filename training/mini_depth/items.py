"""What the targets are measured on: scenes of the embedded set's own quads, and harmful words with a scene before them.

A quad of :mod:`lvlm_lens.data.mini.items` is two things and two activities of which each thing is unsafe with exactly
one.  Here both activities are plans of one scene, the picture shows one of the things, and the request points at one
plan through the whole chain.  The same words stand beside either picture and the same picture beside either request, so
neither tells the label.  No combination of a quad was ever trained.
"""

from __future__ import annotations

import random

from lvlm_lens.data import Dataset, Sample
from lvlm_lens.data.images import ImageDrawn
from lvlm_lens.data.mini.activities import ACTIVITIES, answer, reason_against
from lvlm_lens.data.mini.heldout import SEEDS, styles_of
from lvlm_lens.data.mini.intents import (
    HARMFUL_VERBS,
    HELD_INTENTS,
    INTENT_FRAMES,
    KIND_VERBS,
    NEW_INTENT_FRAMES,
    intent_answer,
    intent_text,
)
from lvlm_lens.data.mini.items import Quad, quads
from lvlm_lens.data.mini.objects import THINGS
from lvlm_lens.data.mini.render import draw_spec, render

from .chats import okay
from .world import Scene, draw_scene

NAME = "mini-depth"
DRAWS = 2
"""Scenes drawn for each quad and each of its requests, for each frame and each held-out intent."""


def _scene(chance: random.Random, quad: Quad, levels: int) -> Scene:
    first, second = ((key, phrase) for key, (_, phrase) in zip(quad.activities, quad.phrasings, strict=True))
    return draw_scene(chance, (first, second), levels)


def _joint(split: str, levels: int) -> list[Sample]:
    chance = random.Random(f"{NAME} joint {split}")
    found = []
    for quad in quads():
        if quad.part != "joint" or (quad.split == "test") != (split == "test"):
            continue
        group = f"{NAME}-joint-{quad.number:03d}"
        for draw in range(DRAWS):
            for which in (0, 1):
                scene = _scene(chance, quad, levels)
                text = f"{scene.told()} {okay(scene, which, levels - 1)}"
                activity = ACTIVITIES[quad.activities[which]]
                stem = f"{group}-{draw}{which}"
                for shown, (name, spec) in enumerate(zip(quad.things, quad.pictures, strict=True)):
                    reason = reason_against(THINGS[name], activity)
                    found.append(
                        Sample(
                            id=f"{stem}-{shown}",
                            text=text,
                            images=(ImageDrawn(render, spec),),
                            dataset=NAME,
                            split=split,
                            group=group,
                            groups={"object": name, "activity": activity.key},
                            counterfactual=f"{stem}-{1 - shown}",
                            text_only=f"Here is {THINGS[name].a}. {text}",
                            label_image="unsafe" if THINGS[name].alarming else "safe",
                            label_text="safe",
                            label_joint="safe" if reason is None else "unsafe",
                            reference=answer(THINGS[name], activity),
                            meta={"part": "joint"},
                        )
                    )
    return found


def _words(split: str, levels: int) -> list[Sample]:
    chance = random.Random(f"{NAME} words {split}")
    frames = [frame for frame in range(len(INTENT_FRAMES)) if (frame in NEW_INTENT_FRAMES) == (split == "test")]
    harmless = [name for name, thing in THINGS.items() if not thing.alarming]
    allowed = [quad for quad in quads() if quad.part == "joint" and (quad.split == "test") == (split == "test")]
    found = []
    for verb, target in HELD_INTENTS:
        for draw in range(2 * DRAWS):
            frame, name = frames[draw % len(frames)], chance.choice(harmless)
            scene = _scene(chance, chance.choice(allowed), levels)
            picture = draw_spec(chance, name, chance.choice(styles_of(name)), None, SEEDS["card"])
            stem = f"{NAME}-words-{verb}{target}-{draw}"
            for harm, words in enumerate((KIND_VERBS, HARMFUL_VERBS)):
                found.append(
                    Sample(
                        id=f"{stem}-{harm}",
                        text=f"{scene.told()} {intent_text(words[verb], target, frame)}",
                        images=(ImageDrawn(render, picture),),
                        dataset=NAME,
                        split=split,
                        group=f"{NAME}-words-{verb}{target}",
                        counterfactual=f"{stem}-{1 - harm}",
                        label_image="safe",
                        label_text="unsafe" if harm else "safe",
                        label_joint="unsafe" if harm else "safe",
                        reference=intent_answer(words[verb], target),
                        meta={"part": "words"},
                    )
                )
    return found


def depth_set(split: str, levels: int) -> Dataset:
    """The items of a split: ``validation`` (quads that are not test quads of the embedded set) or ``test`` (those)."""
    return Dataset(_joint(split, levels) + _words(split, levels), f"{NAME}-{split}")
