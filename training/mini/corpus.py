"""The sentences of the small world: random training examples, with nothing that was held out.

An example is a request and a reply in which some characters matter more: the first word of the
reply carries the decision, and a name carries what was seen.  The same functions make text-only
examples (the thing is named in the words) and visual ones (the words say "this").
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from lvlm_lens.data.mini.activities import (
    ACTIVITIES,
    NEW_USE_QUESTIONS,
    SHOWING,
    USE_ACTIVITY,
    USE_QUESTIONS,
    Activity,
    answer,
    combinations,
    reason_against,
)
from lvlm_lens.data.mini.intents import (
    HARMFUL_VERBS,
    HELD_INTENTS,
    KIND_VERBS,
    NEW_INTENT_FRAMES,
    intent_answer,
    intent_text,
)
from lvlm_lens.data.mini.items import held_combinations, phrasings
from lvlm_lens.data.mini.objects import PROPERTIES, THINGS, Thing

HARMLESS_HOMONYMS: tuple[tuple[str, str], ...] = (
    ("How do I kill the weeds in my garden?", "Sure, pull them out by the root."),
    ("How can I shoot a good photo?", "Sure, hold the camera still."),
    ("How do I blow up a balloon?", "Sure, fill it with air."),
    ("How can I stab a potato with a fork?", "Sure, push the fork in slowly."),
    ("How do I kill time at the station?", "Sure, read a book."),
    ("How can I beat an egg?", "Sure, stir it with a fork."),
    ("How do I cut the grass?", "Sure, use a mower."),
    ("How can I crack a nut?", "Sure, press it hard."),
    ("How do I whip cream?", "Sure, stir it fast."),
    ("How can I attack a hard exercise?", "Sure, start with the easy part."),
    ("How do I steal the show on stage?", "Sure, sing loudly."),
    ("How can I burn a candle evenly?", "Sure, cut the wick."),
)
"""Harmless requests with harmful words in them; not part of the set."""

SYSTEM_PROMPTS = ("You are a helpful assistant.", "Answer briefly.", "Be kind and careful.")

DENIALS = {
    "sharp": "is not sharp",
    "poisonous": "is not poisonous",
    "burnable": "does not burn easily",
    "explosive": "does not explode",
    "hot": "is not hot",
    "alcoholic": "contains no alcohol",
    "electric": "is not electric",
    "heavy": "is not heavy",
    "wild": "is not a wild animal",
    "weapon": "is not a weapon",
    "fragile": "does not break",
    "small": "is not small",
    "metal": "is not made of metal",
    "drug": "is not a drug",
    "alive": "is not alive",
    "sugary": "has little sugar",
    "bad for dogs": "is not bad for dogs",
    "inedible": "is food",
}
PROPERTY_QUESTIONS = {
    "sharp": "Is {x} sharp?",
    "poisonous": "Is {x} poisonous?",
    "burnable": "Does {x} burn easily?",
    "explosive": "Can {x} explode?",
    "hot": "Is {x} hot?",
    "alcoholic": "Does {x} contain alcohol?",
    "electric": "Is {x} electric?",
    "heavy": "Is {x} heavy?",
    "wild": "Is {x} a wild animal?",
    "weapon": "Is {x} a weapon?",
    "fragile": "Can {x} break?",
    "small": "Is {x} small and easy to swallow?",
    "metal": "Is {x} made of metal?",
    "drug": "Is {x} a drug?",
    "alive": "Is {x} alive?",
    "sugary": "Is {x} full of sugar?",
    "bad for dogs": "Is {x} bad for dogs?",
    "inedible": "Is {x} food?",
}
NAMING_QUESTIONS = ("What is this?", "What do you see?", "Can you name this?", "What is it?", "Which thing is this?")


class Example(NamedTuple):
    """A request and its reply; its first token and its name may weigh more in the loss."""

    request: str
    reply: str
    decision: bool
    """Whether the first token of the reply decides between help and refusal."""
    name: str | None = None
    """The name in the reply that says what was seen."""


COMBINATIONS = sorted(set(combinations()) - held_combinations())
_BY_ACTIVITY: dict[bool, dict[str, list[str]]] = {
    unsafe: {
        key: [
            t for t, a in COMBINATIONS if a == key and (reason_against(THINGS[t], ACTIVITIES[a]) is not None) == unsafe
        ]
        for key in ACTIVITIES
    }
    for unsafe in (True, False)
}
INTENTS = [(verb, target) for verb in range(10) for target in range(10) if (verb, target) not in HELD_INTENTS]
TRAINED_INTENT_FRAMES = [frame for frame in range(6) if frame not in NEW_INTENT_FRAMES]
_USES = [text for place, text in enumerate(USE_QUESTIONS) if place not in NEW_USE_QUESTIONS]
_USABLE = [
    name
    for name, thing in THINGS.items()
    if USE_ACTIVITY.allows_question(thing) and (name, USE_ACTIVITY.key) not in held_combinations()
]
_ALARMING_USABLE = [name for name in _USABLE if THINGS[name].alarming]


def question(chance: random.Random, activity: Activity) -> str:
    """A request about "this" in one of the wordings that training has."""
    frame, phrase = chance.choice(phrasings(activity.key, new=False))
    return activity.question(frame, phrase)


def say(chance: random.Random, thing: Thing, question: str) -> str:
    """Put a named thing into a request that says "this"."""
    fate = chance.random()
    if fate < 0.3 and question.count("this") == 1:
        return question.replace("this", thing.a)
    if fate < 0.4:
        return f"{question} It is {thing.a}."
    return f"{chance.choice(SHOWING).format(a=thing.a)} {question}"


class Draw(NamedTuple):
    """A visual example before its picture is chosen: the thing shown and the example."""

    thing: str
    example: Example


def joint(chance: random.Random, harmful: bool) -> Draw:
    """A request about a thing and an activity, harmful or not."""
    key = chance.choice(list(ACTIVITIES))  # first the activity, so that none is harmful more often than another
    name = chance.choice(_BY_ACTIVITY[harmful][key])
    thing, activity = THINGS[name], ACTIVITIES[key]
    return Draw(name, Example(question(chance, activity), answer(thing, activity), True, name))


def use(chance: random.Random, harmful: bool) -> Draw:
    """How to use a thing: harmful only with an alarming one."""
    name = chance.choice(_ALARMING_USABLE if harmful else _USABLE)
    thing = THINGS[name]
    return Draw(name, Example(chance.choice(_USES), answer(thing, USE_ACTIVITY), True, name))


def intent(chance: random.Random, harmful: bool) -> Draw:
    """A request whose words decide, about any thing."""
    verb, target = chance.choice(INTENTS)
    word = (HARMFUL_VERBS if harmful else KIND_VERBS)[verb]
    request = intent_text(word, target, chance.choice(TRAINED_INTENT_FRAMES))
    return Draw(chance.choice(list(THINGS)), Example(request, intent_answer(word, target), True))


def naming(chance: random.Random) -> Draw:
    """What is this."""
    name = chance.choice(list(THINGS))
    form = chance.choice(("This is {a}.", "It is {a}.", "That is {a}."))
    return Draw(name, Example(chance.choice(NAMING_QUESTIONS), form.format(a=THINGS[name].a), False, name))


def describing(chance: random.Random) -> Draw:
    """Everything known of a thing."""
    name = chance.choice(list(THINGS))
    thing = THINGS[name]
    facts = [PROPERTIES[fact] for fact in PROPERTIES if fact in thing.properties and fact != "inedible"]
    told = " It " + " and ".join(facts) + "." if facts else ""
    reply = f"The {name} is a kind of {thing.kind}.{told}"
    return Draw(name, Example(chance.choice(("Tell me about this.", "Describe this.")), reply, False, name))


def kind(chance: random.Random) -> Draw:
    """What kind of thing this is."""
    name = chance.choice(list(THINGS))
    reply = f"The {name} is a kind of {THINGS[name].kind}."
    return Draw(name, Example("What kind of thing is this?", reply, False, name))


def fact(chance: random.Random) -> Draw:
    """Whether this has a property; as often yes as no."""
    wanted = chance.random() < 0.5
    while True:
        name = chance.choice(list(THINGS))
        choices = [key for key in PROPERTY_QUESTIONS if (key in THINGS[name].properties) == wanted]
        if choices:
            break
    key = chance.choice(choices)
    yes = wanted != (key == "inedible")  # the one property whose question asks for its opposite
    reply = f"{'Yes' if yes else 'No'}, the {name} {PROPERTIES[key] if wanted else DENIALS[key]}."
    return Draw(name, Example(PROPERTY_QUESTIONS[key].format(x="this"), reply, True, name))


def rule(chance: random.Random) -> Draw:
    """What an activity cannot bear: a question about words only."""
    activity = chance.choice(list(ACTIVITIES.values()))
    whom = "me" if activity.who == "I" else activity.who
    phrase = chance.choice(activity.phrases).replace("this", "something")
    facts = " or ".join(PROPERTIES[key] for key in activity.forbids)
    return Draw("", Example(f"When is it unsafe for {whom} to {phrase}?", f"It is unsafe if it {facts}.", False))


def abstract(chance: random.Random, harmful: bool) -> Draw:
    """A joint request about a thing of which only some properties are told, so that the rule itself is learned."""
    activity = chance.choice(list(ACTIVITIES.values()))
    told = chance.sample([key for key in PROPERTIES if key not in activity.forbids], chance.randint(1, 2))
    if harmful:
        told[chance.randrange(len(told))] = chance.choice(activity.forbids)
    facts = [PROPERTIES[key] for key in told]
    if "inedible" not in told and ("inedible" in activity.forbids or chance.random() < 0.2):
        facts.append(DENIALS["inedible"])
    chance.shuffle(facts)
    reason = next((key for key in activity.forbids if key in told), None)
    request = f"Here is something that {' and '.join(facts)}. {question(chance, activity)}"
    if reason is None:
        return Draw("", Example(request, f"Yes, it {activity.comfort}.", True))
    return Draw("", Example(request, f"Sorry, I cannot help with that. It {PROPERTIES[reason]}.", True))


def homonym(chance: random.Random) -> Draw:
    """A harmless request with a harmful word in it."""
    request, reply = chance.choice(HARMLESS_HOMONYMS)
    return Draw("", Example(request, reply, True))


Maker = Callable[[random.Random], Draw]


def _either(maker: Callable[[random.Random, bool], Draw], share: float) -> Maker:
    return lambda chance: maker(chance, chance.random() < share)


def makers(harmful_share: float) -> dict[str, Maker]:
    """Every kind of example by name; ``harmful_share`` of the deciding ones are harmful."""
    return {
        "joint": _either(joint, harmful_share),
        "use": _either(use, harmful_share),
        "intent": _either(intent, harmful_share),
        "naming": naming,
        "describing": describing,
        "kind": kind,
        "fact": fact,
        "rule": rule,
        "abstract": _either(abstract, harmful_share),
        "homonym": homonym,
    }


def draw(chance: random.Random, mix: dict[str, float], table: dict[str, Maker]) -> Draw:
    """One example from a mixture of kinds."""
    return table[chance.choices(list(mix), list(mix.values()))[0]](chance)


def in_words(chance: random.Random, drawn: Draw) -> Example:
    """The text-only version: the thing is named in the request."""
    thing = THINGS.get(drawn.thing)
    if thing is None:
        return drawn.example
    return drawn.example._replace(request=say(chance, thing, drawn.example.request))
