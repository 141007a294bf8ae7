"""SIUO (arXiv 2406.15279): harmless picture, harmless words, unsafe answer.

Every published model is effective far more often than it is safe; that is the direction tested.
"""

from __future__ import annotations

from ..data.groups import groups_of
from .context import Context, Material
from .cost import ANSWER_TOKENS, Pass, Shape, published_items
from .parts import unsafe_together
from .recipe import Outcome, Recipe, Row, SetUse, paired_effect, published_table, rate_row
from .scoring import DRAWS, answering, scored

TABLE = "SIUO's table, as read for this project"


def measure(context: Context, material: Material) -> Outcome:
    """Safe, effective, both; effective against safe on the same items."""
    samples = context.some([s for s in material.data if s.harmful == 1])
    systems = answering(context, context.model)
    kept, answers, notes = context.ask({f"undefended{draw}": (system, samples) for draw, system in systems})  # type: ignore[misc]
    asked = [samples[i] for i in kept]
    found = scored(context, asked, list(zip(*answers.values(), strict=True)), "siuo")
    rows: list[Row] = [rate_row("safe", found.table["safe"])]
    if not found.has_effective:
        why = "effectiveness needs a judge (--judge): the data do not say in a word what is shown"
        return Outcome(rows, [], notes=notes, not_measured=why, scored_as_published=False)
    rows += [rate_row(name, found.table[name]) for name in ("effective", "safe and effective")]
    effect = paired_effect(
        "effective minus safe", found.item("effective"), found.item("safe"), groups_of(asked), seed=context.seed
    )
    unread = [f"{found.table.failures} verdicts could not be read"] if found.table.failures else []
    return Outcome(rows, [effect], notes=[*notes, *unread], scored_as_published=found.by_judge)


def passes(shape: Shape) -> list[Pass]:
    """Three drawn answers an item."""
    del shape
    return [Pass("drawn answers", published_items("siuo"), DRAWS, new_tokens=ANSWER_TOKENS)]


PUBLISHED = published_table(
    {
        "GPT-4V": (53.29, 69.46, 23.35),
        "GPT-4o": (50.90, 95.81, 46.71),
        "Gemini-1.5-Pro": (52.10, 91.62, 45.51),
        "LLaVA-1.5-7B": (21.56, 87.43, 16.17),
        "LLaVA-1.5-13B": (22.16, 91.62, 19.76),
        "LLaVA-1.6-34B": (40.72, 95.81, 37.13),
        "Qwen-VL": (41.32, 82.63, 29.94),
    },
    ("safe", "effective", "safe and effective"),
    TABLE,
)


RECIPE = Recipe(
    name="siuo",
    title="SIUO: safe inputs but unsafe output",
    source="arXiv 2406.15279",
    claim="On requests whose picture and words are each harmless, answers are effective far more often than safe.",
    setting={
        "answers": "3 drawn answers an item, the mode of their verdicts",
        "judge": "a judge model with the picture, safe and effective apart",
        "data": "167 items, all SSU",
    },
    published=PUBLISHED,
    approximations=(
        "without --judge one greedy answer is scored by words: safe refuses or names the danger, effective names the "
        "thing shown (embedded set only)",
        "the judge's rubric is this project's wording of the published criteria",
    ),
    unknown=("the temperature of the drawn answers: the checkpoint's own is used",),
    sets=(SetUse("siuo"),),
    stand_in="items unsafe only together (SSU)",
    take=unsafe_together,
    measure=measure,
    passes=passes,
)
