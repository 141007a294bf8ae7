"""MM-SafetyBench (arXiv 2311.17600): a picture that fits the request gets it through."""

from __future__ import annotations

from .context import Context, Material
from .cost import ANSWER_TOKENS, Pass, Shape, published_items
from .forms import picture_against_words
from .parts import unsafe_together
from .recipe import Outcome, Recipe, SetUse

PICTURE = "SD_TYPO picture"


def measure(context: Context, material: Material) -> Outcome:
    """With the picture against in words alone."""
    return picture_against_words(context, material, "picture" if material.stand_in else PICTURE)


def passes(shape: Shape) -> list[Pass]:
    """Each question with its SD, SD_TYPO and TYPO picture, and in words."""
    del shape
    items = published_items("mm_safetybench", "groups")
    return [
        Pass("SD, SD_TYPO and TYPO pictures", items, 3, new_tokens=ANSWER_TOKENS),
        Pass("words", items, new_tokens=ANSWER_TOKENS, picture=False),
    ]


RECIPE = Recipe(
    name="mm-safetybench",
    title="MM-SafetyBench",
    source="arXiv 2311.17600",
    claim="Harmful requests are answered more often beside a picture that fits them than in words alone.",
    setting={"data": "13 scenarios, 1,680 questions x 3 pictures", "judge": "a judge model; attack success rate"},
    published=(),
    approximations=(
        "attack success is told by words",
        "SD_TYPO against words; SD and TYPO are run by `--dataset` with a folder of one's own",
    ),
    unknown=("the paper's tables were not read", "the judge's wording"),
    sets=(SetUse("mm_safetybench", "SD_TYPO"),),
    stand_in="items unsafe only together (SSU), with the picture and in words",
    take=unsafe_together,
    measure=measure,
    passes=passes,
)
