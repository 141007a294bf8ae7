"""The First to Know (arXiv 2403.09037): the first token's logits already hold what the model will not say.

A logistic regression on the logits of the first answer token, trained on the first ten samples of each scenario.
A public result of the same paper is that picture features alone solve much of the usual benchmark, so the words and
the picture alone stand beside it here.
"""

from __future__ import annotations

import numpy as np

from ..data.groups import groups_of
from ..data.splits import train_and_test
from ..defenses.detectors import FirstTokenProbe
from ..defenses.probe import LogisticProbe
from ..evaluate.rates import rate
from ..measures.baselines import baseline_features
from ..measures.evidence import gather
from .context import Context, Material
from .cost import Pass, Shape, published_items
from .hiddendetect import area
from .parts import everything
from .recipe import Effect, Outcome, Recipe, Row, SetUse, rate_row

NAMES = {
    "text_only": "words alone", "image_only": "picture alone", "input_embedding": "input embeddings",
    "nuisance": "length, size and brightness",
}  # fmt: skip


def measure(context: Context, material: Material) -> Outcome:
    """AUROC and accuracy on the test part, and the same classifier on words, picture and input embeddings."""
    train, test = train_and_test(material.data, context.limit, context.limit, context.seed)
    detector = FirstTokenProbe(batch_size=context.batch_size).fit(context.model, train)
    few = [train[i] for i in detector.training_rows(train)]
    context.tell(f"first-token probe from {len(few)} items on {len(test)}")
    scores = detector.score_prompt(context.model, test)
    found = area(scores, test, context.replicates, context.seed)
    labels = np.array([int(s.harmful or 0) for s in test])
    right = (scores >= detector.threshold_) == (labels == 1)
    rows = [
        Row("AUROC, first-token logits", *found, "AUROC", len(test)),
        rate_row("accuracy, first-token logits", rate(right.tolist(), groups=groups_of(test).tolist())),
    ]
    evidence = gather(context.model, [*few, *test], batch_size=context.batch_size)
    few_labels = np.array([int(s.harmful or 0) for s in few])
    caveats = []
    for key, features in baseline_features(evidence).items():
        probe = LogisticProbe(detector.C, balanced=False).fit(features[: len(few)], few_labels)
        other = area(probe.predict_proba(features[len(few) :]), test, context.replicates, context.seed)
        rows.append(Row(f"AUROC, {NAMES[key]}", *other, "AUROC", len(test)))
        if other[0] >= found[1]:
            caveats.append(
                f"the same classifier on {NAMES[key]} has AUROC {other[0]:.3f}, inside or above the probe's interval, "
                "so the data can be told apart without this model's answer"
            )
    count = len(set(groups_of(test).tolist()))
    effect = Effect(
        "AUROC of the first-token probe above chance", found[0] - 0.5, found[1] - 0.5, found[2] - 0.5, count, "AUROC"
    )
    return Outcome(rows, [effect], caveats=caveats)


def passes(shape: Shape) -> list[Pass]:
    """One forward per prompt, its first-token logits kept."""
    items = published_items("mm_safetybench", "groups")
    return [Pass("MM-SafetyBench prompts", items, kept=4 * shape.vocabulary)]


RECIPE = Recipe(
    name="first-token",
    title="The First to Know: first-token logits hold hidden knowledge",
    source="arXiv 2403.09037",
    claim="A linear probe on the logits of the first answer token tells harmful prompts from harmless ones.",
    setting={
        "training": "the first 10 samples of each scenario",
        "classifier": "scikit-learn's default logistic regression, threshold 0.5",
    },
    published=(),
    approximations=(
        "a scenario is a category and a label; the data are those that are there, split by group",
        "the picture's features are this model's own tower's, not CLIP's",
    ),
    unknown=("the paper's tables were not read", "its harmless prompts, file by file"),
    sets=(SetUse("mm_safetybench", "SD_TYPO"), SetUse("vlguard"), SetUse("mmvet")),
    stand_in="all items",
    take=everything,
    measure=measure,
    passes=passes,
    needs_pictures=False,
)
