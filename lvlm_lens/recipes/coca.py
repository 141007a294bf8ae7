"""CoCA (arXiv 2409.11365): what a safety principle changes in the logits, amplified while decoding.

a = 0 is the principle in the prompt and nothing more; it stands beside the two as a row of its own.
"""

from __future__ import annotations

from ..defenses.coca import CoCA
from .context import Context, Material
from .cost import Pass, Shape
from .defended import UNDEFENDED, attack_items, defence_passes, defended
from .parts import pictured
from .recipe import Outcome, Recipe, SetUse


class PrincipleOnly(CoCA):
    """CoCA with a = 0: the principle in the prompt."""

    name = "principle"


def measure(context: Context, material: Material) -> Outcome:
    """Attack success undefended, with the principle, and calibrated."""
    return defended(context, material, [PrincipleOnly(alpha=0.0), CoCA()], {"coca": UNDEFENDED})


def passes(shape: Shape) -> list[Pass]:
    """Undefended, with the principle, and two branches at each step."""
    del shape
    principle = defence_passes("the principle alone", attack_items(), 1, 60)
    return [*principle, defence_passes("coca", attack_items(), 2, 60)[1]]


RECIPE = Recipe(
    name="coca",
    title="CoCA: constitutional calibration",
    source="arXiv 2409.11365",
    claim="Amplifying a safety principle's change of the logits lowers attack success.",
    setting={"decoding": "next token from z(.|c, x) + a (z(.|c, x) - z(.|x)), the same token to both branches"},
    published=(),
    approximations=(CoCA.approximation, "attack success is told by words"),
    unknown=("the paper's a, its principles and its tables",),
    sets=(SetUse("mm_safetybench", "SD_TYPO"),),
    stand_in="items with a picture, test and validation split",
    take=pictured,
    measure=measure,
    passes=passes,
)
