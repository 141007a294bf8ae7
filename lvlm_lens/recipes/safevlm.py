"""SafeVLM (arXiv 2405.13581): a safety head beside the model, then an adapter, and hints by level of risk."""

from __future__ import annotations

from ..train.safevlm import SafeVLM
from .cost import Pass, Shape
from .recipe import Published, Recipe, SetUse
from .trained import approximations, take_pictures, trained_measure, training_passes

BOARD = "the paper's tables, second-hand"


def passes(shape: Shape) -> list[Pass]:
    """Three epochs over about 100,000 items, then answers."""
    del shape
    return training_passes(rows=100_000, epochs=3, asked=520)


RECIPE = Recipe(
    name="safevlm",
    title="SafeVLM: safety tokens, projector and head, then an adapter (approximation)",
    source="arXiv 2405.13581",
    claim="A safety head with hints, and an adapter after it, lower attack success.",
    setting={
        "stage I": "tokens, projector and head, about 14,000 items, 3,000 of them clean, rate 1e-5, 3 epochs",
        "stage II": "LoRA rank 256 on the language model, about 100,000 items, rate 1e-5, 3 epochs",
    },
    published=(
        Published("attack success, undefended, AdvBench", "LLaVA-1.5-7B", 6.45, "%", BOARD),
        Published("attack success, safevlm, AdvBench", "LLaVA-1.5-7B", 1.72, "%", BOARD),
        Published("attack success, undefended, AdvBench with suffix", "LLaVA-1.5-7B", 78.27, "%", BOARD),
        Published("attack success, safevlm, AdvBench with suffix", "LLaVA-1.5-7B", 67.56, "%", BOARD),
        Published("attack success, undefended, XSTest unsafe", "LLaVA-1.5-7B", 26.50, "%", BOARD),
        Published("attack success, safevlm, XSTest unsafe", "LLaVA-1.5-7B", 7.46, "%", BOARD),
    ),
    approximations=tuple(approximations(SafeVLM)),
    unknown=("which of the modules' sizes SafeVLM's own paper has", "RTVLM's judge and its prompt"),
    sets=(SetUse("rtvlm"), SetUse("vlguard")),
    stand_in="items with a picture: train split trained on, test split asked",
    take=take_pictures,
    measure=trained_measure(lambda steps: SafeVLM(head_steps=min(200, steps)), "vlguard"),
    passes=passes,
)
