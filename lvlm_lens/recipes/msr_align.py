"""MSR-Align (arXiv 2506.19257): policy-grounded reasoning before the answer."""

from __future__ import annotations

from ..train.msr_align import MSRAlign
from .cost import Pass, Shape
from .recipe import Recipe, SetUse
from .trained import approximations, take_pictures, trained_measure, training_passes


def passes(shape: Shape) -> list[Pass]:
    """Three epochs over 10,000 rows (size assumed), then answers."""
    del shape
    return training_passes(rows=10_000, epochs=3, asked=1680, reply=512)


RECIPE = Recipe(
    name="msr-align",
    title="MSR-Align: policy-grounded multimodal reasoning",
    source="arXiv 2506.19257",
    claim="Supervised fine-tuning on policy-grounded reasoning lowers attack success.",
    setting={"loss": "cross-entropy of reasoning and answer", "adapter": "a third party: LoRA rank 8, alpha 16"},
    published=(),
    approximations=tuple(approximations(MSRAlign)),
    unknown=("size of the training set, schema, rate and epochs", "the published tables were not read"),
    sets=(SetUse("msr_align"), SetUse("mm_safetybench", "SD_TYPO")),
    stand_in="items with a picture: train split trained on, test split asked",
    take=take_pictures,
    measure=trained_measure(lambda steps: MSRAlign(), "msr_align"),
    passes=passes,
)
