"""SPA-VL (arXiv 2406.12030): preference alignment on pictures."""

from __future__ import annotations

from ..train.spa_vl import SPAVL
from .cost import Pass, Shape
from .recipe import Recipe, SetUse
from .trained import approximations, take_pictures, trained_measure, training_passes


def passes(shape: Shape) -> list[Pass]:
    """One epoch over 90,000 pairs, both replies under model and reference, then answers."""
    del shape
    return training_passes(rows=4 * 90_000, epochs=1, asked=265)


RECIPE = Recipe(
    name="spa-vl",
    title="SPA-VL: preference alignment, DPO",
    source="arXiv 2406.12030",
    claim="Direct preference optimisation on better and worse replies lowers attack success.",
    setting={
        "loss": "DPO, beta 0.1",
        "epochs": "1",
        "batch": "8",
        "rate": "1e-6 in full, 2e-5 in the script named lora",
    },
    published=(),
    approximations=tuple(approximations(SPAVL, "LoRA; the release trains decoder and projector in full")),
    unknown=(
        "the published tables were not read",
        "whether the release's LoRA run was one: its script switches LoRA off",
    ),
    sets=(SetUse("spa_vl"),),
    stand_in="items with a picture: train split trained on, test split asked",
    take=take_pictures,
    measure=trained_measure(lambda steps: SPAVL(), "spa_vl"),
    passes=passes,
)
