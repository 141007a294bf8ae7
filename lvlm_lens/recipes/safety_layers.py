"""Safety Layers (arXiv 2408.17003): a contiguous range of early blocks tells malicious prompts from normal ones.

The gap between normal-normal and normal-malicious angles is nothing in the first blocks, then grows, and where it
first stops growing the first range ends.  Read in the authors' code; block outputs, last prompt token.
"""

from __future__ import annotations

import numpy as np

from ..causal.scaled_blocks import sharpen_range
from ..evaluate.rates import wilson
from ..measures.angular_gap import AngularGap
from ..measures.evidence import gather
from ..measures.items import group_names, harm_labels
from ..plots.curves import plot_curve
from ..stats.resampling import interval
from .context import Context, Material
from .cost import Pass, Shape, published_items
from .parts import everything
from .recipe import Effect, Outcome, Published, Recipe, Row, SetUse, rate_row

FACTOR = 1.15
"""Of the weights; the paper takes about 1.1 to 1.2."""
THIRD_PARTY = "independent reading of the paper (third party), range of blocks"


def measure(context: Context, material: Material) -> Outcome:
    """The gap by block against shuffled labels, and against the first block's gap."""
    samples = context.some([s for s in material.data if s.harmful is not None])
    evidence = gather(context.model, samples, batch_size=context.batch_size)
    labels, names = harm_labels(evidence.samples), group_names(evidence.samples)
    gap = AngularGap(replicates=context.replicates, random_state=context.seed).fit(evidence, labels, names)
    curve = gap.curve_
    assert curve.replicates is not None and curve.null_draws is not None
    best = int(np.argmax(curve.value))
    # the block was chosen after looking, so each is held against the best block of every shuffle
    null = curve.null_draws.max(1)
    count = len(set(names.tolist()))
    growth = curve.replicates[:, best] - curve.replicates[:, 0]
    low, high = interval(growth[np.isfinite(growth)])
    grown = float(curve.value[best] - curve.value[0]), float(low), float(high)
    effects = [
        Effect(
            f"gap at block {curve.blocks[best]}", float(curve.value[best]), float(curve.low[best]),
            float(curve.high[best]), count, "radians", bound=float(np.quantile(null, 0.95)),
        ),
        Effect(
            f"gap at block {curve.blocks[best]} minus the first block's", *grown, count, "radians",
            bound=float(np.quantile(null - curve.null_draws[:, 0], 0.95)),
        ),
    ]  # fmt: skip
    rows = [
        Row("largest angular gap", float(curve.value[best]), float(curve.low[best]), float(curve.high[best]),
            "radians", len(samples)),
    ]  # fmt: skip
    notes = []
    figure = plot_curve(curve, context.model.n_blocks, title="Angular gap, normal and malicious", fit=True)
    if gap.range_ is None:
        notes.append("no block's gap exceeds shuffled labels: there is no first range, and none was sharpened")
    else:
        harmless = [sample for sample in samples if sample.harmful == 0]
        first = gap.range_[0], gap.range_[1] + 1
        context.tell(f"sharpening from blocks {gap.range_[0]} to {gap.range_[1]} on {len(harmless)} harmless prompts")
        found = sharpen_range(context.model, harmless, first, FACTOR, context.batch_size)
        nan = float("nan")
        for what, block in (
            ("first range begins", gap.range_[0]), ("first range ends", gap.range_[1]),
            ("safety layers begin", found.start), ("safety layers end", found.stop - 1),
        ):  # fmt: skip
            rows.append(Row(what, float(block), nan, nan, "block", len(samples)))
        for what, count in (("as it is", found.base), ("range scaled", found.refusals)):
            rows.append(rate_row(f"harmless prompts refused, {what}", wilson(count, found.n)))
    return Outcome(rows, effects, {"angular_gap": figure}, notes)


def passes(shape: Shape) -> list[Pass]:
    """One forward per prompt, every block's output at the last token kept; then both ends of the range moved."""
    safe = published_items("xstest", "label_joint=safe")
    return [
        Pass("prompts", published_items("advbench"), 2, picture=False, kept=2 * 4 * shape.blocks * shape.width),
        Pass("harmless prompts under each range, at most", safe, 2 * shape.blocks, picture=False),
    ]


def _range(model: str, begins: float, ends: float) -> tuple[Published, Published]:
    return (
        Published("safety layers begin", model, begins, "block", THIRD_PARTY),
        Published("safety layers end", model, ends, "block", THIRD_PARTY),
    )


RECIPE = Recipe(
    name="safety-layers",
    title="Safety Layers of aligned language models",
    source="arXiv 2408.17003",
    claim="Malicious prompts part from normal ones in a range of blocks after the first: the angular gap exceeds "
    "that of shuffled labels and grows from the first block on.",
    setting={
        "models": "Llama-3-8B, Llama-2-7B, Phi-3-mini, gemma-2b (text only)",
        "pairs": "500 random pairs of each kind",
        "read": "block outputs, last prompt token",
        "sharpening": "all matrices of the range times 1.1 to 1.2, refusals on XSTest's safe prompts counted",
    },
    published=(
        *_range("Llama-3-8B", 6, 12),
        *_range("Llama-2-7B", 9, 14),
        *_range("Phi-3-mini", 11, 15),
        *_range("gemma-2b", 8, 11),
    ),
    approximations=(
        "all pairs of different groups in place of 500 random ones, which estimate the same mean",
        "sharpening, by a factor of 1.15, counts refusals by the first token on the harmless prompts at hand",
        "Llama-3-8B is given as 6 or 7 to 12; 6 stands in the table",
    ),
    unknown=(
        "whether the published ranges count blocks from 0 or from 1, and whether the end is inside",
        "the published prompts, file by file",
    ),
    sets=(SetUse("xstest"),),
    stand_in="all items",
    take=everything,
    measure=measure,
    passes=passes,
    needs_pictures=False,
)
