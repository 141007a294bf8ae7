"""What a job has to say to be run by workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

Compute = Callable[[str], Literal["done", "busy"]]
"""Computes one shard and commits it.  ``busy``: a writer outside this run has claimed it and is still alive."""


class Job(Protocol):
    """A job cut into shards.  It is pickled once for each worker, so it holds words and numbers, never a model."""

    title: str
    """What the progress bar says."""
    folder: str
    """Run folder, as an absolute path or fsspec address: every worker must see it."""

    def shards(self) -> list[str]:
        """Names of all shards in a fixed order, whatever the number of workers."""

    def finished(self) -> set[str]:
        """Names of the shards that are in the ledger."""

    def open(self) -> Compute:
        """Load what a shard needs (the model above all); called once in each worker."""


@dataclass(frozen=True)
class State:
    """Where a run stands, for a progress bar: shards done, all of them, workers computing, workers, shards waiting."""

    done: int
    total: int
    busy: int
    workers: int
    waiting: int
