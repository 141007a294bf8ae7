"""Training studies: a shard is one training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..job import Opened

if TYPE_CHECKING:
    from ...train.method import Job, Method


@dataclass(frozen=True)
class TrainingsJob:
    """Trainings of one method, each into a folder of its own; one that was killed continues at its last checkpoint.

    Attributes:
        method: that trains; trainings: by name.  Who watches them stays with the driver.
        folder: of the study.
    """

    method: Method
    trainings: Mapping[str, Job]
    folder: str
    title: str = "trainings"

    def finished(self) -> set[str]:
        """Trainings with a record."""
        from ...train.folder import RECORD

        return {name for name, job in self.trainings.items() if (Path(job.folder) / RECORD).is_file()}

    def open(self) -> Opened:
        """Nothing to keep: each training loads its base anew, on this worker's device."""
        from ...stages.inputs import best_device

        def compute(shard: str) -> Literal["done", "busy"]:
            job = self.trainings[shard]
            self.method.train(replace(job, loading={**job.loading, "device": best_device()}))
            return "done"

        return Opened(list(self.trainings), compute)


def unwatched(job: Job) -> Job:
    """A training as it travels: without its listeners, and without the driver's device."""
    from ...train.method import Job as Fresh

    loading = {name: value for name, value in job.loading.items() if name != "device"}
    return Fresh(job.model, job.data, job.settings, Path(job.folder).absolute(), loading, command=job.command)
