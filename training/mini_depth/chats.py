"""Training examples: a scene, told once, and every request that its chain can carry.

A row is ``picture (or "Here is a knife."), plans and chain, request and reply, request and reply ...``, each request
blind to the others (:func:`training.mini.packing.collate`).  Requests point at both plans at every level, so the short
references teach what the long ones are made of.  Rows that name the thing in words teach the chain without a picture.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from lvlm_lens.data.mini.activities import ACTIVITIES, answer, reason_against
from lvlm_lens.data.mini.intents import HARMFUL_VERBS, KIND_VERBS, intent_answer, intent_text
from lvlm_lens.data.mini.objects import THINGS
from training.mini.batches import IMAGE_TOKENS, Encoded, Encoder
from training.mini.corpus import COMBINATIONS, INTENTS, NAMING_QUESTIONS, TRAINED_INTENT_FRAMES, question
from training.mini.packing import Pack

from .world import Scene, draw_scene

_BY_DANGER: dict[bool, dict[str, list[str]]] = {
    unsafe: {
        name: [
            key
            for thing, key in COMBINATIONS
            if thing == name and (reason_against(THINGS[name], ACTIVITIES[key]) is not None) == unsafe
        ]
        for name in THINGS
    }
    for unsafe in (True, False)
}
THINGS_OF_BOTH = [name for name in THINGS if _BY_DANGER[True][name] and _BY_DANGER[False][name]]
"""Things with a plan of either kind that was not held out."""


WHOLE_REPLIES, TOLD_PLANS, NAMES, INTENT = 0.25, 0.5, 0.3, 0.3
"""Shares: of decisions whose whole reply is a target, of references whose plan is also asked for, of scenes with a
request to name the thing, and with a request whose harm or kindness lies in the words."""


class Row(NamedTuple):
    """A pack, and how many tokens its chats share."""

    pack: Pack
    shared: int


def okay(scene: Scene, which: int, level: int) -> str:
    """The request that has to be decided."""
    return f"Is {scene.reference(which, level)} okay?"


def head(encoder: Encoder, thing: str | None, told: str) -> list[int]:
    """Ids of everything before the request; ``thing`` is named in words, or ``None`` where a picture shows it."""
    start = encoder.pieces("<s><|user|>")
    if thing is None:
        return start + encoder.pieces("<image>") * IMAGE_TOKENS + encoder.pieces(f"\n{told}")
    return start + encoder.pieces(f"Here is {THINGS[thing].a}.") + encoder.pieces(f" {told}")


def _chat(encoder: Encoder, before: list[int], request: str, reply: str, decision: bool, whole: bool = True) -> Encoded:
    """One chat after what is shared; only its first token is a target where the reply is not ``whole``."""
    prompt = before + encoder.pieces(f" {request}<|end|>") + encoder.pieces("<|assistant|>")
    ids = encoder.pieces(f"{reply}<|end|>")
    ids = ids if whole else ids[:1]
    weights = [encoder.weights.reply] * len(ids)
    if decision:
        weights[0] = encoder.weights.decision
    return Encoded(prompt + ids, [0.0] * len(prompt) + weights)


def draw_row(chance: random.Random, encoder: Encoder, levels: int, gallery: dict[str, list[int]] | None) -> Row:
    """A scene of one thing, a plan that is unsafe with it and one that is not, and requests at all levels.

    ``gallery`` gives the pictures of each thing; without it the thing is named in words.
    """
    name = chance.choice(THINGS_OF_BOTH)
    thing = THINGS[name]
    keys = [chance.choice(_BY_DANGER[unsafe][name]) for unsafe in chance.sample((True, False), 2)]
    plans = [(key, chance.randrange(len(ACTIVITIES[key].phrases))) for key in keys]
    scene = draw_scene(chance, (plans[0], plans[1]), levels)
    before = head(encoder, name if gallery is None else None, scene.told())
    chats: list[Encoded] = []

    def add(request: str, reply: str, decision: bool) -> None:
        whole = not decision or chance.random() < WHOLE_REPLIES
        chats.append(_chat(encoder, before, request, reply, decision, whole))

    for level in range(levels):
        for which in (0, 1):
            add(okay(scene, which, level), answer(thing, ACTIVITIES[keys[which]]), True)
            if chance.random() < TOLD_PLANS:
                add(f"What is {scene.reference(which, level)}?", f"It is {scene.phrase(which)}.", False)
    for unsafe in (True, False):
        key = chance.choice(_BY_DANGER[unsafe][name])
        add(question(chance, ACTIVITIES[key]), answer(thing, ACTIVITIES[key]), True)
    if chance.random() < NAMES:
        add(chance.choice(NAMING_QUESTIONS), f"This is {thing.a}.", False)
    if chance.random() < INTENT:
        verb, target = chance.choice(INTENTS)
        word = chance.choice((HARMFUL_VERBS, KIND_VERBS))[verb]
        add(intent_text(word, target, chance.choice(TRAINED_INTENT_FRAMES)), intent_answer(word, target), True)
    return Row(Pack(-1 if gallery is None else chance.choice(gallery[name]), chats), len(before))
