"""ShiftDC (arXiv 2502.13095): a picture pushes a harmful request toward "safe"; take that part of the push back.

The push is the residual with the picture minus the residual with its caption; "safe" is against the direction from
harmless to harmful requests in words.
"""

from __future__ import annotations

import numpy as np

from ..data import Dataset
from ..data.groups import groups_of
from ..defenses.shiftdc import ShiftDC
from .context import Context, Material
from .cost import ANSWER_TOKENS, Pass, Shape, published_items
from .defended import UNDEFENDED, asked_part, attack_outcome
from .recipe import Effect, Outcome, Recipe, Row, SetUse, paired_effect, same_model

BLOCKS = {"LLaVA-1.5-7B": (10, 31)}


def take(mini: Dataset) -> Dataset:
    """Items that say in words what their picture shows."""
    return mini.filter(lambda sample: bool(sample.images) and sample.text_only is not None)


def measure(context: Context, material: Material) -> Outcome:
    """The push on harmful items, then attack success with the correction."""
    train, test = asked_part(context, material)
    first, last = next((v for k, v in BLOCKS.items() if same_model(k, context.model.name)), (None, None))
    defense = ShiftDC(first_block=first, last_block=last, batch_size=context.batch_size).fit(context.model, train)
    harmful = [sample for sample in test if sample.harmful == 1 and sample.images]
    context.tell(f"shift of {len(harmful)} harmful items in blocks {defense.blocks_[0]} to {defense.blocks_[-1]}")
    corrections = defense.corrections(None, context.model, harmful)  # share * s_l, [item, block, d_model]
    safety = defense.safety_.astype(np.float64)
    share = (corrections * safety).sum(-1) / (safety**2).sum(-1)  # [item, block]
    names = groups_of(harmful)
    push = paired_effect(
        "shift of the picture along the harmful direction (share of its length)",
        share.mean(1).tolist(), [0.0] * len(harmful), names, "below", 1.0, "shares", context.seed,
    )  # fmt: skip
    kept, answers, notes = context.ask(
        {UNDEFENDED: (context.model, test), "shiftdc": (defense.guard(context.model), test)}
    )
    outcome = attack_outcome([test[i] for i in kept], answers, {"shiftdc": UNDEFENDED}, context.seed, notes)
    row = Row(push.what, push.value, push.low, push.high, "shares", len(harmful))
    effects: list[Effect] = [push, *outcome.effects]
    return Outcome([row, *outcome.rows], effects, notes=outcome.notes)


def passes(shape: Shape) -> list[Pass]:
    """Text-only means, both runs of each item, and the corrected answer."""
    items = published_items("mm_safetybench", "groups")
    return [
        Pass("requests in words", items, picture=False, kept=4 * shape.blocks * shape.width),
        Pass("captions", items, new_tokens=64),
        Pass("caption runs", items, picture=False),
        Pass("picture runs", items),
        Pass("undefended answers", items, new_tokens=ANSWER_TOKENS),
        Pass("corrected answers", items, new_tokens=ANSWER_TOKENS),
    ]


RECIPE = Recipe(
    name="shiftdc",
    title="ShiftDC: disentangling and calibrating the modality shift",
    source="arXiv 2502.13095",
    claim="Beside their captions, pictures move harmful requests against the harmful direction of words, and taking "
    "that component back lowers attack success.",
    setting={
        "model": "LLaVA-1.5-7B, blocks 10 to 31",
        "correction": "the component along text-only unsafe minus safe means, last prompt token, prefill only",
    },
    published=(),
    approximations=(ShiftDC.approximation, "attack success is told by words"),
    unknown=("the paper's tables were not read", "its prompts for the text-only means"),
    sets=(SetUse("mm_safetybench", "SD_TYPO"), SetUse("figstep"), SetUse("figstep", "benign"), SetUse("xstest")),
    stand_in="items with a version in words",
    take=take,
    measure=measure,
    passes=passes,
)
