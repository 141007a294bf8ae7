"""The selftest: a shard is one constructed model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..job import Opened


@dataclass(frozen=True)
class TrialsJob:
    """Trials of one study, each in a file of its own; the arguments are those of ``run_study``."""

    folder: str
    models: int
    pairs: tuple[int, ...]
    seed: int
    title: str = "models"

    def finished(self) -> set[str]:
        """Trials whose file is there."""
        return {path.stem for path in Path(self.folder).glob("*.json")}

    def open(self) -> Opened:
        """Nothing to load: each trial builds its model."""
        from ...selftest.study import Study

        study = Study(self.models, self.pairs, self.seed, folder=Path(self.folder))

        def compute(shard: str) -> Literal["done", "busy"]:
            study.trial(int(shard))
            return "done"

        return Opened([f"{number:04d}" for number in range(self.models)], compute)
