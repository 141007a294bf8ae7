"""A worker: a process on one device that keeps a job open and computes the shards that it is given."""

from __future__ import annotations

import os
import socket
import traceback
from dataclasses import dataclass
from pathlib import Path

from ..errors import LensError, RunFolderError
from .job import Compute, Job


@dataclass(frozen=True)
class Failure:
    """An error as it travels: exceptions of user code do not always survive pickling."""

    kind: type[LensError]
    message: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """``error`` in words; one that is not the toolkit's own keeps its traceback."""
        if isinstance(error, LensError):
            return cls(type(error), str(error))
        return cls(LensError, f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}")

    def raised(self, where: str = "") -> LensError:
        """The error to raise on the driver."""
        return self.kind(f"{where}: {self.message}" if where else self.message)


@dataclass(frozen=True)
class Place:
    """What the driver tells a worker about itself.

    Attributes:
        directory: the driver's working directory, from which relative paths of the command are meant.
        witness: a file in the run folder that every worker must see; ``None`` for a remote address.
        threads: for matrix products on a CPU.
    """

    directory: str
    witness: str | None
    threads: int


class Worker:
    """Opened once, then asked for shards."""

    def __init__(self) -> None:
        self._compute: Compute | None = None

    def open(self, job: Job, place: Place) -> Failure | list[str]:
        """Check that the run folder is shared and load what the job needs; the names of its shards, or the failure."""
        try:
            _stand_in(place)
            import torch

            torch.set_num_threads(place.threads)
            opened = job.open()
        except Exception as error:  # told in words: the driver raises it, once, for all workers
            return Failure.of(error)
        self._compute = opened.compute
        return opened.shards

    def run(self, shard: str) -> Failure | str:
        """Compute one shard: ``done`` or ``busy``, or why it failed."""
        assert self._compute is not None
        try:
            return self._compute(shard)
        except Exception as error:  # likewise; the driver stops and names the shard
            return Failure.of(error)

    def process(self) -> tuple[str, int]:
        """Host name and process number."""
        return socket.gethostname(), os.getpid()


def _stand_in(place: Place) -> None:
    here = socket.gethostname()
    if place.witness is not None and not Path(place.witness).is_file():
        raise RunFolderError(
            f"the worker on {here} does not see {str(Path(place.witness).parent)!r}: --ray needs a folder that all "
            "nodes share (a network file system, or an fsspec address such as s3://bucket/run)"
        )
    if Path(place.directory).is_dir():
        os.chdir(place.directory)
