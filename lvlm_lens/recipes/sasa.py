"""SASA (arXiv 2507.21637): project the fused semantics onto the earlier safety block, then probe the first token.

Only the abstract and an independent reimplementation could be read, so the claim is the abstract's: the projection
makes danger easier to detect before generation.  It counts only against the same probe at the same training size
without projection.
"""

from __future__ import annotations

from ..data.groups import groups_of
from ..data.splits import train_and_test
from ..defenses.sasa import SASA
from ..defenses.sasa_report import sasa_report
from ..evaluate.rates import rate
from ..plots.sasa import plot_controls, plot_gain_map
from .context import Context, Material
from .cost import Pass, Shape, published_items
from .parts import everything
from .recipe import Effect, Outcome, Published, Recipe, Row, SetUse, rate_row, same_model

BLOCKS = {"LLaVA-1.5-7B": (13, 15)}
"""Published (s, f); whether they count from 0 or from 1 is not known, and 0 is taken."""

COMPANY = "a company page on SASA, not the paper's tables"
NOT_STATED = "model not stated"
VLGUARD_TEST = 1000
"""Records of VLGuard's test.json."""


def measure(context: Context, material: Material) -> Outcome:
    """The report of ``lvlm-lens sasa``, and the published guard at threshold 0.5."""
    given = next((cell for name, cell in BLOCKS.items() if same_model(name, context.model.name)), (None, None))
    report = sasa_report(
        context.model,
        material.data,
        safety_block=given[0],
        fused_block=given[1],
        n_train=context.limit,
        n_test=context.limit,
        quick=context.limit is not None,
        replicates=context.replicates,
        batch_size=context.batch_size,
        seed=context.seed,
    )
    train, test = train_and_test(material.data, context.limit, context.limit, context.seed)
    blocks = report.setting["safety_block"], report.setting["fused_block"]
    guard = SASA(safety_block=blocks[0], fused_block=blocks[1], batch_size=context.batch_size).fit(context.model, train)
    flags = guard.predict(context.model, test)
    sides = []
    for label in (1, 0):
        of = [i for i, s in enumerate(test) if s.harmful == label]
        sides.append(rate([bool(flags[i]) for i in of], groups=groups_of([test[i] for i in of]).tolist()))
    rows = [
        Row("AUROC with projection", *_three(report.sasa), "AUROC", len(test)),
        Row("AUROC without projection", *_three(report.reference), "AUROC", len(test)),
        rate_row("interception", sides[0]),
        rate_row("false positives", sides[1]),
    ]
    gain = next(row for row in report.contest if row["rival"] == "no_projection")
    count = len(set(groups_of([*train, *test]).tolist()))
    effect = Effect("AUROC with projection minus without", gain["value"], gain["low"], gain["high"], count, "AUROC")
    figures = {
        "sasa_controls": plot_controls(report.controls),
        "sasa_map": plot_gain_map(report.map["cells"], context.model.n_blocks),
    }
    where = f"s = {blocks[0]}, f = {blocks[1]} ({report.setting['chosen_by']})"
    return Outcome(rows, [effect], figures, [report.verdict, where, *report.notes])


def _three(found: dict[str, float]) -> tuple[float, float, float]:
    return found["auroc"], found["low"], found["high"]


def passes(shape: Shape) -> list[Pass]:
    """Pass 1 and the blocks above s once more, for every item; no generation for those refused."""
    items = published_items("mm_safetybench", "groups") + VLGUARD_TEST + published_items("figstep")
    s, _ = BLOCKS["LLaVA-1.5-7B"]
    return [
        Pass("pass 1 (plain)", items, kept=4 * shape.vocabulary),
        Pass("pass 2 (blocks above s)", items, share=(shape.blocks - s - 1) / shape.blocks, kept=4 * shape.vocabulary),
    ]


RECIPE = Recipe(
    name="sasa",
    title="SASA: self-aware safety augmentation",
    source="arXiv 2507.21637",
    claim="Projecting intermediate (fused) semantics onto the earlier safety block makes danger easier to detect from "
    "the first token than the same probe without projection.",
    setting={
        "model": "LLaVA-1.5-7B, s = 13, f = 15",
        "probe": "logistic regression on first-token logits of pass 2, C = 1, balanced, threshold 0.5",
        "data": "MM-SafetyBench (SD_TYPO), VLGuard test, FigStep",
    },
    published=(
        Published("interception", NOT_STATED, 98.4, "%", COMPANY),
        Published("false positives", NOT_STATED, 2.3, "%", COMPANY),
        Published("interception by AdaShield", NOT_STATED, 66.0, "%", COMPANY),
        Published("false positives of AdaShield", NOT_STATED, 22.1, "%", COMPANY),
        Published("interception by fine-tuning", NOT_STATED, 96.1, "%", COMPANY),
        Published("false positives of fine-tuning", NOT_STATED, 8.7, "%", COMPANY),
    ),
    approximations=(
        "the equation is that of an independent reimplementation, not of the paper",
        "blocks on other models are chosen by cross-validation on training data",
        "training and test part are the sets' own, or halves by group; a limit also makes the map coarser",
    ),
    unknown=(
        "equations 1 to 7, the probe's training size, the other models and the tables of the paper",
        "whether blocks count from 0 or from 1",
        "the model and the data of the company page's numbers, so no run can be compared with them",
    ),
    sets=(SetUse("mm_safetybench", "SD_TYPO"), SetUse("vlguard"), SetUse("figstep")),
    stand_in="all items",
    take=everything,
    measure=measure,
    passes=passes,
    needs_pictures=False,
)
