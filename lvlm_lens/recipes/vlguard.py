"""VLGuard (arXiv 2402.02207): safety fine-tuning at almost no cost."""

from __future__ import annotations

from ..train.vlguard import VLGuard
from .cost import Pass, Shape
from .recipe import Recipe, SetUse
from .trained import approximations, take_pictures, trained_measure, training_passes


def passes(shape: Shape) -> list[Pass]:
    """One epoch over 7,000 rows, then answers."""
    del shape
    return training_passes(rows=7000, epochs=1, asked=1558)


RECIPE = Recipe(
    name="vlguard",
    title="VLGuard: post-hoc safety fine-tuning",
    source="arXiv 2402.02207",
    claim="Fine-tuning on safety rows and helpful rows lowers attack success.",
    setting={"data": "2,000 safety and 5,000 helpful rows", "loss": "cross-entropy of the reply"},
    published=(),
    approximations=tuple(approximations(VLGuard)),
    unknown=("epochs and rate are those of LLaVA's scripts, not stated", "the published tables were not read"),
    sets=(SetUse("vlguard"),),
    stand_in="items with a picture: train split trained on, test split asked",
    take=take_pictures,
    measure=trained_measure(lambda steps: VLGuard(), "vlguard"),
    passes=passes,
)
