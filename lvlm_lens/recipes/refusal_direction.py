"""Refusal direction (arXiv 2406.11717): refusal is mediated by one direction of the residual stream.

Taken out everywhere it should lower refusal of harmful prompts, added at its block it should raise refusal of
harmless ones, and a random direction of the same norm should do neither.  Read in the authors' code; block inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..causal.directions import direction_effects
from ..causal.refusal_direction import candidate_directions, select_refusal_direction
from ..data import Sample
from ..data.groups import groups_of
from ..data.splits import train_and_test
from ..stats.resampling import group_folds
from .context import Context, Material
from .cost import Pass, Shape
from .parts import everything
from .recipe import Outcome, Published, Recipe, Row, SetUse, paired_effect

RANDOM = 3
CODE = "the authors' code"
TRAIN, VALIDATION = 256, 64
"""Published sizes: 128 + 128 training and 32 + 32 validation prompts."""


def measure(context: Context, material: Material) -> Outcome:
    """Direction from the training part; ablation and addition on the test part, beside random directions."""
    train, test = train_and_test(material.data, context.limit, context.limit, context.seed)
    context.tell(f"direction from {len(train)} items")
    fit, validation = _halves(train, context.seed)
    context.tell(f"direction from {len(train)} items, every candidate ablated and added")
    chosen = select_refusal_direction(
        context.model, fit, validation, random_directions=0, batch_size=context.batch_size, seed=context.seed
    )
    passing = sum(row["passes"] for row in chosen.candidates)
    notes = [f"{passing} of {len(chosen.candidates)} candidates pass the rule"]
    caveats = []
    nan = float("nan")
    rows = []
    if chosen.chosen is not None and chosen.direction is not None:
        block, direction = int(chosen.chosen["source_block"]), chosen.direction
        rows = [
            Row("block of the direction", float(block), nan, nan, "block", len(train)),
            Row("position of the direction", float(chosen.chosen["position"]), nan, nan, "token", len(train)),
        ]
    else:
        best = min(chosen.candidates, key=lambda row: row["ablation"])
        block = int(best["source_block"])
        direction = candidate_directions(context.model, *fit, -best["position"], context.batch_size)[
            -1 - best["position"], block
        ]
        caveats.append(
            f"no candidate passes the published rule, so the one with the lowest ablation score is taken: token "
            f"{best['position']}, block {block} (KL {best['kl']:.2g}, steering score {best['steering']:.2g})"
        )
    context.tell(f"ablation and addition at block {block} on {len(test)} items")
    effects = direction_effects(
        context.model,
        test,
        direction,
        block,
        random_directions=RANDOM,
        batch_size=context.batch_size,
        seed=context.seed,
    )
    values = dict(zip(effects.names, effects.values, strict=True))
    made = []
    for word, label, expect in (("ablate", 1, "below"), ("add", 0, "above")):
        rows_of = np.array([sample.harmful == label for sample in test])
        real = values[word if word == "ablate" else "add 1"][rows_of]
        random = np.mean([values[f"{word} random {k}"][rows_of] for k in range(RANDOM)], axis=0)
        kind = "harmful" if label else "harmless"
        names = groups_of([s for s in test if s.harmful == label])
        before = effects.baseline[rows_of]
        for what, change in ((f"{word} the direction", real), (f"{word} a random direction", random)):
            row = paired_effect(what, change, before, names, scale=1.0, unit="nats", seed=context.seed)
            rows.append(
                Row(f"refusal log-odds of {kind} items, {what}", row.value, row.low, row.high, "nats", len(before))
            )
        made.append(
            paired_effect(
                f"refusal log-odds of {kind} items, {word} the direction rather than a random one",
                real, random, names, expect, 1.0, "nats", context.seed,  # type: ignore[arg-type]
            )
        )  # fmt: skip
    notes.append(f"direction of norm {float(direction.norm()):.3g}")
    return Outcome(rows, made, notes=notes, caveats=caveats)


def _halves(train: Sequence[Sample], seed: int) -> list[tuple[list[Sample], list[Sample]]]:
    """(harmful, harmless) to form the means, and as many to judge them by, no group in both."""
    labels = np.array([int(sample.harmful or 0) for sample in train])
    side = group_folds(labels, groups_of(train), 2, seed)
    return [
        (
            [s for s, k in zip(train, side, strict=True) if k == half and s.harmful == 1],
            [s for s, k in zip(train, side, strict=True) if k == half and s.harmful == 0],
        )
        for half in (0, 1)
    ]


def passes(shape: Shape) -> list[Pass]:
    """Means over the training prompts; every (block, position) ablated and added on the validation prompts."""
    candidates = round(0.8 * shape.blocks) * POSITIONS
    return [
        Pass("training prompts", TRAIN, picture=False, kept=4 * shape.width * shape.blocks * POSITIONS),
        Pass("validation prompts under each candidate, ablated and added", VALIDATION, 2 * candidates, picture=False),
    ]


POSITIONS = 5
"""Assumed number of template tokens after the instruction."""

RECIPE = Recipe(
    name="refusal-direction",
    title="Refusal is mediated by a single direction",
    source="arXiv 2406.11717",
    claim="Taking one direction out lowers refusal of harmful prompts, and adding it raises refusal of harmless ones, "
    "each more than random directions of the same norm do.",
    setting={
        "models": "Llama-2-7B, Llama-3-8B, gemma-2b, Qwen-1.8B and others (text only)",
        "data": "128 + 128 training prompts, 32 + 32 for validation",
        "selection": "lowest refusal score under ablation, KL on harmless <= 0.1, steering score >= 0, block < 0.8 L",
        "read": "block inputs at each template token after the instruction",
    },
    published=tuple(
        Published("block of the direction", model, block, "block", CODE)
        for model, block in (("Llama-2-7B", 14), ("Llama-3-8B", 12), ("gemma-2b", 10), ("Qwen-1.8B", 15))
    ),
    approximations=(
        "half of the training part forms the means, half judges the candidates",
        "where no candidate passes the rule, the one with the lowest ablation score is taken, and the notes say so",
        "refusal by the log-odds of the first token; generated answers are not judged",
    ),
    unknown=("the published attack success rates were not read",),
    sets=(SetUse("advbench"), SetUse("xstest")),
    stand_in="all items",
    take=everything,
    measure=measure,
    passes=passes,
    needs_pictures=False,
)
