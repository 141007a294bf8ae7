"""Information flow in vision-language models (arXiv 2411.18620): picture to question, then question to answer.

Attention from one group of positions to another is cut in a window of blocks, and the probability of the answer's
first token is watched, on items that are answered rightly.  Read in the authors' code.
"""

from __future__ import annotations

import numpy as np

from ..causal.knockout import FLOWS, attention_knockout
from ..data import Sample
from ..data.groups import groups_of
from ..errors import DataError
from ..evaluate.refusal import refusal_rule
from ..evaluate.utility import is_correct
from ..plots.curves import plot_curve
from ..stats.curve import curve_from_draws
from ..stats.resampling import Resampling, interval, weighted_mean
from .context import Context, Material
from .cost import Pass, Shape
from .parts import pictured
from .recipe import Effect, Outcome, Recipe, Row, SetUse

WIDTH, DEPTH = 9, 32
"""Published window, on a model of 32 blocks; elsewhere the same share of the depth."""
ITEMS = 1000
"""Assumed number of rightly answered items."""


def measure(context: Context, material: Material) -> Outcome:
    """Relative change by flow and block; where on the depth each flow matters."""
    model = context.model
    asked = context.some([sample for sample in material.data if sample.images])
    kept, answers, notes = context.ask({"undefended": (model, asked)})
    samples = [
        asked[i] for i, text in zip(kept, answers["undefended"], strict=True) if answered_rightly(asked[i], text)
    ]
    if not samples:
        raise DataError(f"none of {len(asked)} items was answered rightly; knockout needs some that were")
    width = max(1, round(WIDTH / DEPTH * model.n_blocks))
    context.tell(f"knockout on {len(samples)} of {len(asked)} items, windows of {width} blocks")
    effects = attention_knockout(model, samples, width=width, batch_size=context.batch_size)
    drop = {
        flow: -effects.relative[at * model.n_blocks : (at + 1) * model.n_blocks].T for at, flow in enumerate(FLOWS)
    }  # [sample, block]: share of the probability that is lost
    names = groups_of(samples)
    weights = Resampling(names, context.replicates, context.seed).weights()  # [replicate, sample]
    rows, depths, figures = [], {}, {}
    for flow, values in drop.items():
        words = f"{flow[0]} to {flow[1]}"
        means = weighted_mean(values, weights)  # [replicate, block]
        curve = curve_from_draws(words, range(model.n_blocks), values.mean(0), means, unit="share of probability lost")
        peak = int(np.argmax(curve.value))
        rows.append(
            Row(
                f"largest loss, {words}", 100 * float(curve.value[peak]), 100 * float(curve.low[peak]),
                100 * float(curve.high[peak]), "%", len(samples),
            )
        )  # fmt: skip
        depths[flow] = (_depth(values.mean(0)), np.array([_depth(mean) for mean in means]))
        low, high = interval(depths[flow][1])
        rows.append(
            Row(f"mean depth of the loss, {words}", depths[flow][0], float(low), float(high), "block", len(samples))
        )
        figures[f"knockout_{flow[0]}_{flow[1]}"] = plot_curve(
            curve, model.n_blocks, title=f"Knockout, {words}", fit=True
        )
    late, early = depths["question", "last"], depths["image", "question"]
    low, high = interval(late[1] - early[1])
    order = Effect(
        "mean depth of question to last minus image to question", late[0] - early[0], float(low), float(high),
        len(set(names)), "blocks",
    )  # fmt: skip
    return Outcome(rows, [order], figures, [*notes, f"windows of {width} blocks; {len(samples)} of {len(asked)} used"])


def answered_rightly(sample: Sample, answer: str) -> bool:
    """Harmful: refused.  Harmless: not refused, and right where the data say what is right."""
    refused = refusal_rule("lens")(answer)
    if sample.harmful == 1:
        return refused
    return not refused and is_correct(sample, answer) is not False


def _depth(loss: np.ndarray) -> float:
    """Mean block, weighted by loss (gains count as no loss); NaN where nothing is lost."""
    weight = np.maximum(loss, 0)
    return float((weight * np.arange(len(loss))).sum() / weight.sum()) if weight.sum() > 0 else float("nan")


def passes(shape: Shape) -> list[Pass]:
    """One plain forward per item, and one for each flow and block."""
    return [Pass("plain forwards", ITEMS), Pass("knockouts", ITEMS, len(FLOWS) * shape.blocks)]


RECIPE = Recipe(
    name="information-flow",
    title="Cross-modal information flow",
    source="arXiv 2411.18620",
    claim="Information flows from the picture to the question in lower blocks, and from the question to the answer in "
    "higher ones.",
    setting={
        "window": "9 blocks centred at each block (of 32)",
        "flows": "image to question, image to last, question to last",
        "metric": "relative change of the answer's first-token probability, on items answered rightly",
    },
    published=(),
    approximations=(
        "object patches are not told apart from the picture: no boxes are given, so the middle stage is not measured",
        "the window is the same share of the depth on models of other depths",
        "a harmful item counts as answered rightly where it is refused",
    ),
    unknown=("the paper's curves were not read as numbers",),
    sets=(SetUse("mme"), SetUse("mmvet")),
    stand_in="items with a picture, test and validation split",
    take=pictured,
    measure=measure,
    passes=passes,
)
