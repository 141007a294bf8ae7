"""Reproducing papers: a shard is one recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..job import Opened

if TYPE_CHECKING:
    from ...recipes.running import Request


@dataclass(frozen=True)
class RecipesJob:
    """Recipes into one run folder; one that fails leaves its reason there, and the run itself tells it.

    Attributes:
        request: the setting; folder: of the run; names: of the recipes; command: the command line, for the record.
    """

    request: Request
    folder: str
    names: tuple[str, ...]
    command: tuple[str, ...] = ()
    title: str = "recipes"

    def finished(self) -> set[str]:
        """Recipes with a result."""
        from ...recipes.running import RESULT

        return {name for name in self.names if (Path(self.folder) / name / RESULT).is_file()}

    def open(self) -> Opened:
        """Load the model and claim the folder."""
        from ...recipes.registry import find_recipe
        from ...recipes.running import Runner

        runner = Runner(self.request, Path(self.folder), list(self.command))

        def compute(shard: str) -> Literal["done", "busy"]:
            runner.run(find_recipe(shard), alone=False)
            return "done"

        return Opened(list(self.names), compute)
