"""Patch grids: a shard is a batch of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ...config import SweepConfig
from ..job import Opened

if TYPE_CHECKING:
    from ...causal.patch_grid import GridWork
    from ...stages.patch_run import PatchRun


def _opened(work: GridWork | None) -> Opened:
    """Batches by the number of their first pair, which names their file too."""
    if work is None:
        return Opened([], lambda shard: "done")
    batches = {str(batch[0]): batch for batch in work.batches}

    def compute(shard: str) -> Literal["done", "busy"]:
        for left in work.left():
            if set(left) <= set(batches[shard]):
                work.run(left)
        return "done"

    return Opened(list(batches), compute)


@dataclass(frozen=True)
class PatchJob:
    """Batches of the grid of ``lvlm-lens patch``."""

    run: PatchRun
    title: str = "patching"

    @property
    def folder(self) -> str:
        """The grid's folder."""
        return str(self.run.folder)

    def finished(self) -> set[str]:
        """None: a batch that was halved has two files; a worker sees at once what is left of it."""
        return set()

    def open(self) -> Opened:
        """Load model and data, find the pairs in what was read before, prepare the grid."""
        return _opened(self.run.work(*self.run.load())[0])


@dataclass(frozen=True)
class SweepGridJob:
    """Batches of a sweep's grid; what the model did with each item was read before."""

    config: SweepConfig
    title: str = "patching"

    @property
    def folder(self) -> str:
        """The run folder."""
        return str(self.config.folder)

    def finished(self) -> set[str]:
        """None, as for :class:`PatchJob`."""
        return set()

    def open(self) -> Opened:
        """Load model and data, find the pairs, prepare the grid."""
        from ...stages.inputs import load_inputs
        from ...stages.patching import sweep_grid
        from ...stages.reading import gather_resumable

        model, data = load_inputs(self.config)
        place = self.config.folder / "activations" / "model"
        evidence = gather_resumable(model, data, place, self.config, lambda sample, error: None)
        return _opened(
            sweep_grid(model, data, evidence, self.config.folder / "patch", self.config.pairs, self.config.seed).work
        )
