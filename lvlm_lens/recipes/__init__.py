"""One file a paper: what it claims, under which setting, and whether that shows on a model of one's own.

A recipe's file holds its ``RECIPE``; its name stands in ``NAMES`` of :mod:`.registry`, and ``check_recipe`` proves it.
A recipe uses the public surface of the other rooms only, so it shows how a paper's experiment is written with them.
"""

from .context import Context
from .recipe import (
    CLAIM_STATES,
    Effect,
    Outcome,
    Published,
    Recipe,
    RecipeResult,
    Row,
    Verdict,
)
from .registry import find_recipe, recipe_names, recipes

__all__ = [
    "CLAIM_STATES",
    "Context",
    "Effect",
    "Outcome",
    "Published",
    "Recipe",
    "RecipeResult",
    "Row",
    "Verdict",
    "find_recipe",
    "recipe_names",
    "recipes",
]
