"""What a job has to say to be run by workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

Compute = Callable[[str], Literal["done", "busy"]]
"""Computes one shard and commits it.  ``busy``: a writer outside this run has claimed it and is still alive."""


@dataclass(frozen=True)
class Opened:
    """An open job: the names of all its shards, in an order that does not depend on the workers, and how to do one."""

    shards: list[str]
    compute: Compute


class Job(Protocol):
    """A job cut into shards.  It is pickled once for each worker, so it holds words and numbers, never a model."""

    @property
    def title(self) -> str:
        """What the progress bar says."""

    @property
    def folder(self) -> str:
        """Run folder, as an absolute path or fsspec address: every worker must see it."""

    def finished(self) -> set[str]:
        """Names of the shards that are in the ledger; asked on the driver, which loads no model."""

    def open(self) -> Opened:
        """Load what a shard needs (the model above all); called once in each worker."""


@dataclass(frozen=True)
class State:
    """Where a run stands, for a progress bar: shards done, all of them, workers computing, workers, shards waiting."""

    done: int
    total: int
    busy: int
    workers: int
    waiting: int
