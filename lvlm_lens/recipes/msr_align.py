"""MSR-Align (arXiv 2506.19257): policy-grounded reasoning before the answer."""

from __future__ import annotations

from ..train.msr_align import MSRAlign
from .recipe import SetUse
from .trained import trained_recipe

RECIPE = trained_recipe(
    MSRAlign,
    "msr_align",
    {"rows": 10_000, "epochs": 3, "asked": 1680, "reply": 512},  # the size is assumed
    name="msr-align",
    title="MSR-Align: policy-grounded multimodal reasoning",
    source="arXiv 2506.19257",
    claim="Supervised fine-tuning on policy-grounded reasoning lowers attack success.",
    setting={"loss": "cross-entropy of reasoning and answer", "adapter": "a third party: LoRA rank 8, alpha 16"},
    unknown=("size of the training set, schema, rate and epochs", "the published tables were not read"),
    sets=(SetUse("msr_align"), SetUse("mm_safetybench", "SD_TYPO")),
)
