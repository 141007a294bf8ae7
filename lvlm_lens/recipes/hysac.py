"""HySAC (arXiv 2503.12127): hyperbolic entailment sends unsafe queries to safe items.

ViSU's pictures are private, so the claim is asked on the small world of :mod:`lvlm_lens.train.hysac.world`: a CLIP from
scratch, then the same budget for the two matched contrastive terms (what Euclidean fine-tuning is), for all four of
them without the geometry, and for all seven.  The model named on the command line has no part in it.
"""

from __future__ import annotations

from ..data import Dataset
from ..evaluate.rates import rate
from ..train.hysac.experiment import STEPS, TUNED, bounds_of, from_scratch, tune
from ..train.hysac.experiment import measure as measure_row
from ..train.hysac.world import World
from .context import Context, Material
from .cost import Pass, Shape
from .recipe import Outcome, Published, Recipe, SetUse, paired_effect, rate_row

SPLIT = "combination"
SAFE, OWN = "unsafe text to picture: safe half", "unsafe text to picture: own safe one R@1"
SHOWN = ("safe text to picture R@1", "safe picture to text R@1", OWN, SAFE)
PAPER = "published R@1 on ViSU, test split"
_NUMBERS = {
    "safe text to picture R@1": {"CLIP": 36.8, "Safe-CLIP": 45.9, "MERU": 50.0, "HySAC": 49.8},
    "safe picture to text R@1": {"CLIP": 39.8, "Safe-CLIP": 45.3, "MERU": 51.2, "HySAC": 48.2},
    "unsafe text to picture: own safe one R@1": {"CLIP": 2.0, "Safe-CLIP": 8.0, "MERU": 2.3, "HySAC": 30.5},
}


def take(mini: Dataset) -> Dataset:
    """Nothing of the set is used; it stands for the world that its pictures are drawn from."""
    return mini


def measure(context: Context, material: Material) -> Outcome:
    """Three rows on scenes whose combination no training has seen."""
    if not material.stand_in:
        return Outcome([], [], not_measured="ViSU's pictures are private; without --root a small world stands in")
    share = 1.0 if context.limit is None else min(1.0, context.limit / 200)
    steps, tuned = max(10, round(share * STEPS)), max(5, round(share * TUNED))
    world = World.draw()
    clip = from_scratch(world, context.seed, steps)
    rows, items = [], {}
    for name in ("matched", "four", "hysac"):
        model = tune(clip, name, world, context.seed, tuned)
        items[name] = measure_row(model, world, SPLIT, bounds_of(model, world))["items"]
        for what in SHOWN:
            values, things = zip(*items[name][what], strict=True)
            rows.append(rate_row(f"{what}, {name}", rate(values, groups=things)))
    after, things = zip(*items["hysac"][SAFE], strict=True)
    effects = [
        paired_effect(
            f"{SAFE}, hysac minus {other}", after, [v for v, _ in items[other][SAFE]], things, seed=context.seed
        )
        for other in ("matched", "four")
    ]
    caveats = [] if effects[1].holds else [f"the geometry is not shown to add to the four terms: {effects[1]}"]
    few = f"the trainings had {steps} and {tuned} steps of {STEPS} and {TUNED}, which shows that they run"
    notes = [
        f"a CLIP of {steps} steps from scratch, {tuned} steps a row, one seed; `python -m "
        "training.hysac OUT` runs all seven rows and five seeds",
        "'four' is the control: all four contrastive terms without the geometry",
    ]
    return Outcome(rows, effects[:1], notes=notes, caveats=caveats, cut_short=few if steps < STEPS else "")


def passes(shape: Shape) -> list[Pass]:
    """A CLIP tower in place of the model: forward and backward over 140,000 quadruplets."""
    del shape
    return [Pass("training, pictures and texts of quadruplets", 2 * 140_000, 3 * 50, text_tokens=77)]


RECIPE = Recipe(
    name="hysac",
    title="HySAC: hyperbolic safety-aware vision-language models",
    source="arXiv 2503.12127",
    claim="Entailment in hyperbolic space sends unsafe queries to safe items more often than matched contrast.",
    setting={
        "loss": "four contrastive and three entailment terms",
        "adapter": "LoRA rank 16, alpha 1",
        "rate": "1e-4",
        "epochs": "50, patience 5",
        "batch": "32",
    },
    published=tuple(
        Published(what, model, value, "%", PAPER) for what, found in _NUMBERS.items() for model, value in found.items()
    ),
    approximations=(
        "a small CLIP of drawn scenes, from scratch; LoRA alpha 16",
        "the release's slips (traversal by a Euclidean norm) are a mode of their own, not used here",
    ),
    unknown=("which split the release takes its traversal bounds from",),
    sets=(SetUse("visu"),),
    stand_in="a small world of scenes, drawn from the embedded art",
    take=take,
    measure=measure,
    passes=passes,
    needs_pictures=False,
)
