"""Rational (arXiv 2503.05021): reasons before refusing or answering, learnt in words."""

from __future__ import annotations

from ..train.rational import Rational
from .recipe import Published, SetUse
from .trained import trained_recipe

BOARD = "the paper's tables by two summaries"

RECIPE = trained_recipe(
    Rational,
    "rational",
    {"rows": 3915, "epochs": 3, "asked": 1680, "reply": 256, "picture": False},  # the published mix; epochs assumed
    make=lambda steps: Rational(reasons="data"),
    differs=("reasons are those of the data, not written by the model",),
    name="rational",
    title="Rational: reasoning-enhanced fine-tuning",
    source="arXiv 2503.05021",
    claim="Fine-tuning on reasons and replies in words lowers attack success, on requests with pictures too.",
    setting={
        "loss": "log-likelihood of reason and reply",
        "data": "3,465 refusals, 250 answers to safe XSTest prompts, 200 contrasts",
    },
    published=tuple(
        Published(f"attack success, {system}, {attack} on HarmBench", "Mistral-7B", value, "%", BOARD)
        for attack, before, after in (("GCG", 64.0, 0.0), ("PAIR", 40.0, 4.0), ("TAP", 43.0, 1.0))
        for system, value in (("undefended", before), ("rational", after))
    ),
    unknown=(
        "role prompts, rank, rate and epochs",
        "the paper asks in words; that it carries over to pictures is our question",
    ),
    sets=(SetUse("rational"), SetUse("mm_safetybench", "SD_TYPO")),
)
