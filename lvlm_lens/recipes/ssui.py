"""SSUI (arXiv 2508.08926): in-context examples with their reasoning make answers safer and keep them effective."""

from __future__ import annotations

from dataclasses import replace

from ..data import Dataset, Sample
from ..data.groups import groups_of
from ..data.registry import load_dataset
from ..defenses.base import prompt_text
from ..defenses.ssui_icl import SSUIInContext
from ..errors import DataError
from .context import Context, Material
from .cost import ANSWER_TOKENS, Pass, Shape
from .recipe import Outcome, Recipe, SetUse, paired_effect, published_table, rate_row
from .scoring import scored

TABLE = "SSUI's table, as read for this project"
ITEMS, SHOTS = 1000, 2
"""Assumed: the number of items and of examples is not known to us."""
SYSTEMS = ("zero-shot", "in-context")


def take(mini: Dataset) -> Dataset:
    """Joint items of every split: the training split gives the examples."""
    return mini.filter(lambda sample: sample.quadrant in ("SSU", "SSS"))


def measure(context: Context, material: Material) -> Outcome:
    """Safe, effective and both, with and without examples, on the same unsafe items."""
    unsafe = [sample for sample in material.data if sample.harmful == 1]
    if any(sample.split == "train" for sample in unsafe):
        pool, left = ([s for s in unsafe if (s.split == "train") == side] for side in (True, False))
    else:  # one part only: every other group is for examples
        names = list(dict.fromkeys(groups_of(unsafe)))
        pool = [s for s, name in zip(unsafe, groups_of(unsafe), strict=True) if names.index(name) % 2 == 0]
        left = [s for s, name in zip(unsafe, groups_of(unsafe), strict=True) if names.index(name) % 2 == 1]
    if not pool or not left:
        raise DataError(f"{len(pool)} unsafe items for examples and {len(left)} to test; both are needed")
    test = context.some(left)
    pool = _captioned(context, context.some(pool))
    # the defence asks for both classes; a harmless item without a reply is never an example
    harmless = replace(next(s for s in load_dataset("mini") if s.harmful == 0), reference=None, group="harmless")
    shots = min(SHOTS, len(pool))
    defense = SSUIInContext(k=shots, batch_size=context.batch_size, random_state=context.seed)
    guard = defense.fit(context.model, [*pool, harmless]).guard(context.model)
    kept, answers, notes = context.ask({"zero-shot": (context.model, test), "in-context": (guard, test)})
    asked = [test[i] for i in kept]
    found = {name: scored(context, asked, [[text] for text in answers[name]], "ssui") for name in SYSTEMS}
    rows = []
    for name in SYSTEMS:
        rows.append(rate_row(f"safe, {name}", found[name].table["safe"]))
        if found[name].has_effective:
            rows.append(rate_row(f"effective, {name}", found[name].table["effective"]))
            rows.append(rate_row(f"safe and effective, {name}", found[name].table["safe and effective"]))
    keys = ("safe", "both") if found["zero-shot"].has_effective else ("safe",)
    effects = [
        paired_effect(
            f"{'safe and effective' if key == 'both' else key}, in-context minus zero-shot",
            found["in-context"].item(key),
            found["zero-shot"].item(key),
            groups_of(asked),
            seed=context.seed,
        )
        for key in keys
    ]
    return Outcome(rows, effects, notes=[*notes, f"{shots} examples from {len(pool)}"],
                   scored_as_published=context.judge is not None)  # fmt: skip


def _captioned(context: Context, pool: list[Sample]) -> list[Sample]:
    """Examples are given as text, so a picture without a caption is described by the model itself."""
    bare = [i for i, sample in enumerate(pool) if sample.images and not sample.caption]
    asked = [replace(pool[i], text=prompt_text("describe")) for i in bare]
    written = context.model.generate(asked, context.max_new_tokens, context.batch_size) if asked else []
    for i, caption in zip(bare, written, strict=True):
        pool[i] = replace(pool[i], caption=caption)
    return pool


def passes(shape: Shape) -> list[Pass]:
    """Zero-shot answers, and answers behind the examples."""
    del shape
    return [
        Pass("zero-shot answers", ITEMS, new_tokens=ANSWER_TOKENS),
        Pass("in-context answers", ITEMS, new_tokens=ANSWER_TOKENS, text_tokens=96 + SHOTS * 200),
    ]


PUBLISHED = published_table(
    {
        "GPT-4o": (58.88, 92.06, 54.95, 80.90, 97.81, 75.69),
        "Gemini-1.5": (55.10, 80.33, 46.91, 75.52, 92.32, 69.65),
        "Qwen2.5-VL": (50.90, 77.47, 48.00, 70.72, 95.61, 63.32),
    },
    [f"{name}, {system}" for system in SYSTEMS for name in ("safe", "effective", "safe and effective")],
    TABLE,
)


RECIPE = Recipe(
    name="ssui",
    title="SSUI: explainable reasoning in context",
    source="arXiv 2508.08926",
    claim="Examples with their reasoning before the request make answers more often safe, and more often safe and "
    "effective.",
    setting={"data": "SSUI, 9 classes, all SSU (not public)", "examples": "picture, question, reasoning, safe reply"},
    published=PUBLISHED,
    approximations=(
        SSUIInContext.approximation,
        "without --judge answers are scored by words",
        "examples and test items are different groups of the one set",
    ),
    unknown=("number and choice of the published examples", "size of the set", "the judge and its wording"),
    sets=(SetUse("ssui"),),
    stand_in="items unsafe only together (SSU)",
    take=take,
    measure=measure,
    passes=passes,
)
