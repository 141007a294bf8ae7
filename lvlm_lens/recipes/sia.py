"""SIA (arXiv 2507.16856): describe, infer the intent without the picture, then answer safely."""

from __future__ import annotations

from ..data.groups import groups_of
from ..defenses.sia import SIA
from .context import Context, Material
from .cost import ANSWER_TOKENS, Pass, Shape, published_items
from .parts import unsafe_together
from .recipe import Outcome, Published, Recipe, SetUse, paired_effect, rate_row
from .scoring import scored

ABSTRACT = "SIA's figure on SIUO, as read for this project"
SYSTEMS = ("undefended", "sia")


def measure(context: Context, material: Material) -> Outcome:
    """Safety with and without, on the same items."""
    test = context.some([s for s in material.data if s.harmful == 1])
    guard = SIA().fit(context.model, []).guard(context.model)
    kept, answers, notes = context.ask({"undefended": (context.model, test), "sia": (guard, test)})
    asked = [test[i] for i in kept]
    found = {name: scored(context, asked, [[text] for text in answers[name]], "siuo") for name in SYSTEMS}
    rows = [rate_row(f"safe, {name}", found[name].table["safe"]) for name in SYSTEMS]
    if found["sia"].has_effective:
        rows += [rate_row(f"effective, {name}", found[name].table["effective"]) for name in SYSTEMS]
    effect = paired_effect(
        "safe, sia minus undefended", found["sia"].item("safe"), found["undefended"].item("safe"), groups_of(asked),
        seed=context.seed,
    )  # fmt: skip
    lost = guard.failures.get("intent or reasoning not found", 0)
    caveats = (
        [f"the model wrote no intent or reasoning for {lost} of {len(test)} items"] if 2 * lost > len(test) else []
    )
    counted = [f"sia: {count} x {what}" for what, count in guard.failures.items()]
    return Outcome(
        rows, [effect], notes=[*notes, *counted], caveats=caveats, scored_as_published=context.judge is not None
    )


def passes(shape: Shape) -> list[Pass]:
    """Undefended answers, and three calls an item under SIA."""
    del shape
    items = published_items("siuo")
    return [
        Pass("undefended answers", items, new_tokens=ANSWER_TOKENS),
        Pass("1: descriptions", items, new_tokens=64),
        Pass("2: intents, without the picture", items, new_tokens=64, picture=False, text_tokens=800),
        Pass("3: answers", items, new_tokens=ANSWER_TOKENS, text_tokens=300),
    ]


RECIPE = Recipe(
    name="sia",
    title="SIA: safety by intent awareness",
    source="arXiv 2507.16856",
    claim="Inferring the intent from a description before answering makes answers to SIUO's requests more often safe.",
    setting={"model": "Gemma3-4B on SIUO", "stages": "describe; infer intent without the picture; answer with all"},
    published=(
        Published("safe, undefended", "Gemma3-4B", 28.14, "%", ABSTRACT),
        Published("safe, sia", "Gemma3-4B", 62.28, "%", ABSTRACT),
    ),
    approximations=(SIA.approximation, "without --judge answers are scored by words; one greedy answer an item"),
    unknown=("the authors' prompts and worked examples", "decoding settings"),
    sets=(SetUse("siuo"),),
    stand_in="items unsafe only together (SSU)",
    take=unsafe_together,
    measure=measure,
    passes=passes,
)
