"""SPA-VL (arXiv 2406.12030): preference alignment on pictures."""

from __future__ import annotations

from ..train.spa_vl import SPAVL
from .recipe import SetUse
from .trained import trained_recipe

RECIPE = trained_recipe(
    SPAVL,
    "spa_vl",
    {"rows": 4 * 90_000, "epochs": 1, "asked": 265},  # both replies, model and reference
    differs=("LoRA; the release trains decoder and projector in full",),
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
    unknown=(
        "the published tables were not read",
        "whether the release's LoRA run was one: its script switches LoRA off",
    ),
    sets=(SetUse("spa_vl"),),
)
