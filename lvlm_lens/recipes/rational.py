"""Rational (arXiv 2503.05021): reasons before refusing or answering, learnt in words."""

from __future__ import annotations

from ..train.rational import Rational
from .cost import Pass, Shape
from .recipe import Published, Recipe, SetUse
from .trained import approximations, take_pictures, trained_measure, training_passes


def passes(shape: Shape) -> list[Pass]:
    """Three epochs (assumed) over the published mix of 3,915 rows, then answers."""
    del shape
    return training_passes(rows=3915, epochs=3, asked=1680, reply=256, picture=False)


RECIPE = Recipe(
    name="rational",
    title="Rational: reasoning-enhanced fine-tuning",
    source="arXiv 2503.05021",
    claim="Fine-tuning on reasons and replies in words lowers attack success, on requests with pictures too.",
    setting={
        "loss": "log-likelihood of reason and reply",
        "data": "3,465 refusals, 250 answers to safe XSTest prompts, 200 contrasts",
    },
    published=(
        Published(
            "attack success, undefended, GCG on HarmBench",
            "Mistral-7B",
            64.0,
            "%",
            "the paper's tables by two summaries",
        ),
        Published(
            "attack success, rational, GCG on HarmBench", "Mistral-7B", 0.0, "%", "the paper's tables by two summaries"
        ),
        Published(
            "attack success, undefended, PAIR on HarmBench",
            "Mistral-7B",
            40.0,
            "%",
            "the paper's tables by two summaries",
        ),
        Published(
            "attack success, rational, PAIR on HarmBench", "Mistral-7B", 4.0, "%", "the paper's tables by two summaries"
        ),
        Published(
            "attack success, undefended, TAP on HarmBench",
            "Mistral-7B",
            43.0,
            "%",
            "the paper's tables by two summaries",
        ),
        Published(
            "attack success, rational, TAP on HarmBench", "Mistral-7B", 1.0, "%", "the paper's tables by two summaries"
        ),
    ),
    approximations=tuple(approximations(Rational, "reasons are those of the data, not written by the model")),
    unknown=(
        "role prompts, rank, rate and epochs",
        "the paper asks in words; that it carries over to pictures is our question",
    ),
    sets=(SetUse("rational"), SetUse("mm_safetybench", "SD_TYPO")),
    stand_in="items with a picture: train split trained on, test split asked",
    take=take_pictures,
    measure=trained_measure(lambda steps: Rational(reasons="data"), "rational"),
    passes=passes,
)
