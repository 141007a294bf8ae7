"""Every recipe by name.  A recipe's file holds its ``RECIPE``; it is imported when somebody asks."""

from __future__ import annotations

from importlib import import_module

from ..errors import UsageError, near_matches
from ..plugins import announced
from .recipe import Recipe

NAMES = (
    "sasa",
    "safety-layers",
    "refusal-direction",
    "hiddendetect",
    "first-token",
    "xstest",
    "shiftdc",
    "information-flow",
    "siuo",
    "mssbench",
    "mmsafeaware",
    "ssui",
    "sia",
    "coca",
    "ecso",
    "adashield",
    "figstep",
    "mm-safetybench",
    "srpo",
    "msr-align",
    "rational",
    "safevlm",
    "hysac",
    "spa-vl",
    "vlguard",
)
"""In the order in which ``reproduce all`` runs them; the file is the name with underscores."""


def recipe_names() -> tuple[str, ...]:
    """The words for ``lvlm-lens reproduce``, those of other packages last."""
    return (*NAMES, *(name for name in announced("lvlm_lens.recipes") if name not in NAMES))


def find_recipe(name: str) -> Recipe:
    """A recipe by name; case, blanks, hyphens and underscores do not matter.

    Raises:
        UsageError: no such recipe (with near matches).
    """
    word = name.strip().casefold().replace("_", "-").replace(" ", "-")
    squeezed = {known.replace("-", ""): known for known in NAMES}
    word = squeezed.get(word.replace("-", ""), word)
    if word in NAMES:
        found = import_module(f".{word.replace('-', '_')}", __package__).RECIPE
    else:
        others = announced("lvlm_lens.recipes")
        if word not in others:
            names = (*NAMES, *others)
            listed = ", ".join(names)
            raise UsageError(f"no recipe {name!r}{near_matches(word, names)} The recipes are {listed}, or all")
        found = others[word]
    assert isinstance(found, Recipe)
    return found


def recipes() -> list[Recipe]:
    """All of them."""
    return [find_recipe(name) for name in recipe_names()]
