"""The selftest: a shard is one constructed model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..job import Opened

if TYPE_CHECKING:
    from ...selftest.study import SelfTest


@dataclass(frozen=True)
class TrialsJob:
    """Trials of a study that is claimed; each goes into a file of its own.

    Attributes:
        study: with a folder; folder: that one, as an absolute path.
    """

    study: SelfTest
    folder: str
    title: str = "models"

    def finished(self) -> set[str]:
        """Trials whose file is there."""
        return {str(number) for number in self.study.finished()}

    def open(self) -> Opened:
        """Nothing to load: each trial builds its model."""

        def compute(shard: str) -> Literal["done", "busy"]:
            self.study.trial(int(shard))
            return "done"

        return Opened([str(number) for number in range(self.study.models)], compute)
