"""XSTest (arXiv 2308.01263): safe prompts that use the words of unsafe ones are refused too.

The paper counts full refusals by hand; here a refusal is what the toolkit's rule ``lens`` reads, and every type of safe
prompt has its row.
"""

from __future__ import annotations

import numpy as np

from ..data import Dataset
from ..data.groups import groups_of
from ..errors import DataError
from ..evaluate.rates import rate
from ..evaluate.refusal import refusal_rule
from ..stats.resampling import Resampling, interval, weighted_mean
from .context import Context, Material
from .cost import ANSWER_TOKENS, Pass, Shape, published_items
from .recipe import Effect, Outcome, Published, Recipe, SetUse, rate_row


def take(mini: Dataset) -> Dataset:
    """Harmful and kind verbs in the same request."""
    return mini.filter(lambda sample: sample.meta["part"] == "words" and sample.split != "train")


def measure(context: Context, material: Material) -> Outcome:
    """Refusal of safe prompts, of unsafe ones, and the difference; by type of safe prompt."""
    samples = context.some([sample for sample in material.data if sample.harmful is not None])
    kept, answers, notes = context.ask({"undefended": (context.model, samples)})
    asked = [samples[i] for i in kept]
    safe = np.array([sample.harmful == 0 for sample in asked])
    if safe.all() or not safe.any():
        raise DataError(f"all {len(asked)} prompts are of one label; safe and unsafe ones are compared")
    rule = refusal_rule("lens")
    refused = np.array([rule(text) for text in answers["undefended"]])
    groups = groups_of(asked)
    rows = [
        rate_row(what, rate(refused[side].tolist(), groups=groups[side].tolist()))
        for what, side in (("safe prompts refused", safe), ("unsafe prompts refused", ~safe))
    ]
    kinds = np.array([str(sample.category) for sample in asked])
    for kind in sorted(set(kinds[safe])):
        side = safe & (kinds == kind)
        rows.append(rate_row(f"safe prompts refused, {kind}", rate(refused[side].tolist())))
    weights = Resampling(groups, context.replicates, context.seed).weights()  # [replicate, prompt]
    drawn = [weighted_mean(refused.astype(float), weights * side) for side in (safe, ~safe)]
    exaggerated = 100 * drawn[0]
    effects = [
        _effect("safe prompts refused", 100 * float(refused[safe].mean()), exaggerated, groups[safe]),
        _effect(
            "unsafe prompts refused minus safe ones",
            100 * float(refused[~safe].mean() - refused[safe].mean()),
            100 * (drawn[1] - drawn[0]),
            groups,
        ),
    ]
    return Outcome(rows, effects, notes=notes, scored_as_published=False)


def _effect(what: str, value: float, draws: np.ndarray, groups: np.ndarray) -> Effect:
    low, high = interval(draws[np.isfinite(draws)])
    return Effect(what, value, float(low), float(high), len(set(groups.tolist())), "points")


def passes(shape: Shape) -> list[Pass]:
    """An answer a prompt."""
    del shape
    return [Pass("prompts", published_items("xstest"), new_tokens=ANSWER_TOKENS, picture=False)]


RECIPE = Recipe(
    name="xstest",
    title="XSTest: exaggerated safety",
    source="arXiv 2308.01263",
    claim="Models trained for safety refuse safe prompts that use the words of unsafe ones, though they refuse the "
    "unsafe ones more often.",
    setting={"data": "250 safe prompts of ten types, 200 unsafe contrasts", "answers": "one, temperature 0"},
    published=(
        Published("safe prompts refused", "Llama-2-70B-chat", 38.0, "%", "summaries of the paper (third party); full"),
    ),
    approximations=("a refusal is told by words (rule lens); the paper's were read by people, full and partial apart",),
    unknown=("the paper's table by type was not read",),
    sets=(SetUse("xstest"),),
    stand_in="the part `words`: a harmful and a kind verb in the same request",
    take=take,
    measure=measure,
    passes=passes,
    needs_pictures=False,
)
