"""HiddenDetect (arXiv 2502.14744): refusal words seen through the logit lens, summed over safety-aware blocks.

Read in the authors' code.  A few labelled prompts choose the blocks; the score needs no training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data import Sample
from ..data.groups import groups_of
from ..data.splits import train_and_test
from ..defenses.hiddendetect import HiddenDetect
from ..plots.curves import plot_curve
from ..stats.auroc import auroc, weighted_auroc
from ..stats.curve import Curve, curve_from_draws
from ..stats.resampling import Resampling, interval, permute_labels
from .context import Context, Material
from .cost import Pass, Shape, published_items
from .parts import everything
from .recipe import Effect, Outcome, Published, Recipe, Row, SetUse

PAPER = "the paper's table, as read for this project"
TITLES = {
    "xstest": "XSTest",
    "figstep": "FigStep image",
    "mm_safetybench": "MM-SafetyBench",
    "jailbreakv": "JailBreakV",
}


def measure(context: Context, material: Material) -> Outcome:
    """AUROC of the score on the test part, set by set, raw and mean-centred; FDV by block as a figure."""
    train, test = train_and_test(material.data, context.limit, context.limit, context.seed)
    rows: list[Row] = []
    effects: list[Effect] = []
    for centred in (False, True):
        detector = HiddenDetect(centred=centred, batch_size=context.batch_size).fit(context.model, train)
        context.tell(f"HiddenDetect on {len(test)} items, blocks {detector.window_[0]} to {detector.window_[1]}")
        scores = detector.score_prompt(context.model, test)
        found = area(scores, test, context.replicates, context.seed)
        tail = ", mean-centred" if centred else ""
        rows.append(Row(f"AUROC, all{tail}", *found, "AUROC", len(test)))
        if not centred:
            low, high = found[1] - 0.5, found[2] - 0.5
            count = len(set(groups_of(test).tolist()))
            effects.append(Effect("AUROC of the score above chance", found[0] - 0.5, low, high, count, "AUROC"))
            rows += _by_set(scores, test, context)
            words = [s.without_images() for s in test if s.dataset == "figstep" and s.text_only is not None]
            if len({s.harmful for s in words}) == 2:
                said = area(detector.score_prompt(context.model, words), words, context.replicates, context.seed)
                rows.append(Row("AUROC, FigStep text", *said, "AUROC", len(words)))
            window = detector.window_
    curve = _by_block(detector.strength(context.model, test), test, context)
    nan = float("nan")
    rows += [
        Row("first safety-aware block", float(window[0]), nan, nan, "block", len(train)),
        Row("last safety-aware block", float(window[1]), nan, nan, "block", len(train)),
    ]
    figure = plot_curve(curve, context.model.n_blocks, title="Refusal cosine of the lens, harmful against harmless")
    return Outcome(rows, effects, {"refusal_lens": figure})


def area(scores: np.ndarray, samples: Sequence[Sample], replicates: int, seed: int) -> tuple[float, float, float]:
    """AUROC of harmful against harmless, with a bootstrap over groups."""
    labels = np.array([int(s.harmful or 0) for s in samples])
    weights = Resampling(groups_of(samples), replicates, seed).weights()
    low, high = interval(weighted_auroc(scores, labels, weights)[:, 0])
    return float(auroc(scores, labels)), float(low), float(high)


def _by_block(strength: np.ndarray, test: Sequence[Sample], context: Context) -> Curve:
    """AUROC of the (mean-centred) refusal cosine in each block, with interval and shuffled-label null."""
    labels, names = np.array([int(s.harmful or 0) for s in test]), groups_of(test)
    weights = Resampling(names, context.replicates, context.seed).weights()
    shuffled = permute_labels(labels == 1, names, 50, context.seed + 1)
    null = np.stack([weighted_auroc(strength, drawn)[0] for drawn in shuffled])  # [draw, block]
    value, replicates = weighted_auroc(strength, labels)[0], weighted_auroc(strength, labels, weights)
    return curve_from_draws(
        "refusal cosine", range(strength.shape[1]), value, replicates, null, unit="AUROC", n=len(test)
    )


def _by_set(scores: np.ndarray, test: Sequence[Sample], context: Context) -> list[Row]:
    """A row a published set: its harmful items against its own harmless ones, else against those of all sets."""
    rows = []
    for name, title in TITLES.items():
        mine = [i for i, s in enumerate(test) if s.dataset == name]
        if not any(test[i].harmful == 1 for i in mine):
            continue
        if not any(test[i].harmful == 0 for i in mine):
            mine += [i for i, s in enumerate(test) if s.harmful == 0]
        if any(test[i].harmful == 0 for i in mine) and len({test[i].group for i in mine}) > 1:
            found = area(scores[mine], [test[i] for i in mine], context.replicates, context.seed)
            rows.append(Row(f"AUROC, {title}", *found, "AUROC", len(mine)))
    return rows


def passes(shape: Shape) -> list[Pass]:
    """One forward per prompt; block outputs at the last token."""
    kept = 4 * shape.blocks * shape.width
    return [
        Pass("XSTest", published_items("xstest"), picture=False, kept=kept),
        Pass("FigStep, picture", published_items("figstep"), kept=kept),
        Pass("FigStep, words", published_items("figstep"), picture=False, kept=kept),
        Pass("MM-SafetyBench", published_items("mm_safetybench", "groups"), kept=kept),
        Pass("JailBreakV", published_items("jailbreakv"), kept=kept),
    ]


RECIPE = Recipe(
    name="hiddendetect",
    title="HiddenDetect",
    source="arXiv 2502.14744",
    claim="The similarity of intermediate blocks' lens logits to refusal words tells harmful prompts from harmless "
    "ones before generation, without training.",
    setting={
        "models": "LLaVA-1.6-7B (blocks 16 to 29), Qwen-VL-Chat (21 to 24)",
        "score": "trapezoid area of cos(lm_head(norm(h_l)), r) over the safety-aware blocks",
        "refusal words": "about 20, with and without leading space",
    },
    published=(
        Published("AUROC, XSTest", "LLaVA-1.6", 0.868, "AUROC", PAPER),
        Published("AUROC, FigStep text", "LLaVA-1.6", 0.976, "AUROC", PAPER),
        Published("AUROC, MM-SafetyBench", "LLaVA-1.6", 0.997, "AUROC", PAPER),
        Published("AUROC, FigStep image", "LLaVA-1.6", 0.846, "AUROC", PAPER),
        Published("AUROC, JailBreakV", "LLaVA-1.6", 0.932, "AUROC", PAPER),
        Published("first safety-aware block", "LLaVA-1.6-7B", 16, "block", "the authors' code"),
        Published("last safety-aware block", "LLaVA-1.6-7B", 29, "block", "the authors' code"),
        Published("first safety-aware block", "Qwen-VL-Chat", 21, "block", "the authors' code"),
        Published("last safety-aware block", "Qwen-VL-Chat", 24, "block", "the authors' code"),
    ),
    approximations=(
        HiddenDetect.approximation,
        "a set without harmless items is scored against the harmless items of the other sets",
        "FigStep's harmless side is its authors' benign sentences, where they are there",
    ),
    unknown=(
        "which harmless prompts stood against FigStep, MM-SafetyBench and JailBreakV",
        "the few-shot prompts that chose the blocks",
        "which LLaVA-1.6 the AUROCs are for",
    ),
    sets=(
        SetUse("xstest"),
        SetUse("figstep"),
        SetUse("figstep", "benign"),
        SetUse("mm_safetybench", "SD_TYPO"),
        SetUse("jailbreakv"),
    ),
    stand_in="all items",
    take=everything,
    measure=measure,
    passes=passes,
    needs_pictures=False,
)
