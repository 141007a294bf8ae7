"""SRPO (arXiv 2509.12060): safe reasoning paths, as an RPO-style approximation."""

from __future__ import annotations

from ..train.srpo import SRPO
from .recipe import SetUse
from .trained import STEPS, trained_recipe


def paths(steps: int) -> SRPO:
    """Ten draws a prefix as RPO takes them; in a limited run three short ones."""
    return SRPO() if steps == STEPS else SRPO(draws=3, pairs=2, max_new_tokens=16)


RECIPE = trained_recipe(
    SRPO,
    "ssui",
    {"rows": 3 * 1000, "epochs": 3, "asked": 168},  # branches drawn at three prefixes of each item (sizes assumed)
    make=paths,
    name="srpo",
    title="SRPO: safe reasoning path optimisation, RPO-style approximation",
    source="arXiv 2509.12060",
    claim="Training on branches of reasoning paths, judged by the safety of their final answer, lowers attack success.",
    setting={
        "loss": "RPO: reference term and 0.1 x exploration term",
        "adapter": "LoRA on q and v",
        "rate": "5e-5",
        "epochs": "3",
    },
    unknown=(
        "the objective as the authors state it",
        "the size of the training set",
        "the published tables were not read",
    ),
    sets=(SetUse("ssui"), SetUse("rsbench"), SetUse("siuo")),
)
