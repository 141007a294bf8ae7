"""AdaShield-S (arXiv 2403.09513): a static shield in the prompt has the model examine the picture first."""

from __future__ import annotations

from ..defenses.prompting import AdaShieldS
from .context import Context, Material
from .cost import Pass, Shape
from .defended import UNDEFENDED, attack_items, defence_passes, defended
from .parts import pictured
from .recipe import Outcome, Recipe, SetUse


def measure(context: Context, material: Material) -> Outcome:
    """Attack success with and without the shield."""
    return defended(context, material, [AdaShieldS()], {"adashield_s": UNDEFENDED})


def passes(shape: Shape) -> list[Pass]:
    """One answer with and one without."""
    del shape
    return list(defence_passes("the shield", attack_items(), 1, 150))


RECIPE = Recipe(
    name="adashield",
    title="AdaShield",
    source="arXiv 2403.09513",
    claim="A shield that has the model examine the picture first lowers attack success.",
    setting={"shield": "static (AdaShield-S); the adaptive one retrieves a shield by image-text embedding"},
    published=(),
    approximations=(
        AdaShieldS.approximation,
        "the adaptive variant is not built",
        "attack success is told by words",
    ),
    unknown=(
        "the paper's tables were not read; the figures for AdaShield on SASA's company page stand in recipe sasa",
    ),
    sets=(SetUse("mm_safetybench", "SD_TYPO"), SetUse("figstep")),
    stand_in="items with a picture, test and validation split",
    take=pictured,
    measure=measure,
    passes=passes,
)
