"""ECSO (arXiv 2403.09572): eyes closed, safety on.

Where the model finds its own answer harmful, it answers again from a description, without the picture.
"""

from __future__ import annotations

from ..defenses.ecso import ECSO
from .context import Context, Material
from .cost import ANSWER_TOKENS, Pass, Shape
from .defended import UNDEFENDED, attack_items, defended
from .parts import pictured
from .recipe import Outcome, Recipe, SetUse


def measure(context: Context, material: Material) -> Outcome:
    """Attack success with and without."""
    return defended(context, material, [ECSO()], {"ecso": UNDEFENDED})


def passes(shape: Shape) -> list[Pass]:
    """Answer, check; and where every check says harmful (the dearest case) describe and answer again."""
    del shape
    items = attack_items()
    return [
        Pass("answers, undefended and under ecso", items, new_tokens=ANSWER_TOKENS),
        Pass("checks", items, new_tokens=8, text_tokens=96 + ANSWER_TOKENS),
        Pass("descriptions, at most", items, new_tokens=64),
        Pass("answers without the picture, at most", items, new_tokens=ANSWER_TOKENS, picture=False),
    ]


RECIPE = Recipe(
    name="ecso",
    title="ECSO: eyes closed, safety on",
    source="arXiv 2403.09572",
    claim="Checking its own answer, and answering again without the picture where that is harmful, lowers attack "
    "success.",
    setting={"stages": "answer; is it harmful?; describe the picture for the question; answer from the description"},
    published=(),
    approximations=(ECSO.approximation, "attack success is told by words"),
    unknown=("the paper's tables were not read",),
    sets=(SetUse("mm_safetybench", "SD_TYPO"),),
    stand_in="items with a picture, test and validation split",
    take=pictured,
    measure=measure,
    passes=passes,
)
