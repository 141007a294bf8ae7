"""SafeVLM (arXiv 2405.13581): a safety head beside the model, then an adapter, and hints by level of risk."""

from __future__ import annotations

from ..train.safevlm import SafeVLM
from .recipe import Published, SetUse
from .trained import trained_recipe

BOARD = "the paper's tables, second-hand"


RECIPE = trained_recipe(
    SafeVLM,
    "vlguard",
    {"rows": 100_000, "epochs": 3, "asked": 520},  # about 100,000 items
    make=lambda steps: SafeVLM(head_steps=min(200, steps)),
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
    unknown=("which of the modules' sizes SafeVLM's own paper has", "RTVLM's judge and its prompt"),
    sets=(SetUse("rtvlm"), SetUse("vlguard")),
)
