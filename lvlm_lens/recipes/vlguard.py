"""VLGuard (arXiv 2402.02207): safety fine-tuning at almost no cost."""

from __future__ import annotations

from ..train.vlguard import VLGuard
from .recipe import SetUse
from .trained import trained_recipe

RECIPE = trained_recipe(
    VLGuard,
    "vlguard",
    {"rows": 7000, "epochs": 1, "asked": 1558},  # one epoch
    name="vlguard",
    title="VLGuard: post-hoc safety fine-tuning",
    source="arXiv 2402.02207",
    claim="Fine-tuning on safety rows and helpful rows lowers attack success.",
    setting={"data": "2,000 safety and 5,000 helpful rows", "loss": "cross-entropy of the reply"},
    unknown=("epochs and rate are those of LLaVA's scripts, not stated", "the published tables were not read"),
    sets=(SetUse("vlguard"),),
)
