"""Connecting to Ray: a cluster of this machine's own for ``--workers``, a running one for ``--ray``."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError

_STORE_BYTES = 80 * 2**20
"""Object store of a local cluster: shards go to disk, only a few bytes come back."""


@dataclass(frozen=True)
class Cluster:
    """A connected cluster.

    Attributes:
        workers: how many workers are wanted.
        gpus: of each worker, 0 or 1.
        threads: of each worker, for matrix products on a CPU.
        local: started by this process and ended with it.
    """

    workers: int
    gpus: int
    threads: int
    local: bool


def threads_of(workers: int) -> int:
    """Threads a worker on this machine gets: ``OMP_NUM_THREADS`` where it is set, else its share of the cores.

    With another number of threads a CPU may add up in another order, which changes the last bits of a result.
    """
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else max(1, (os.cpu_count() or 1) // workers)


@contextmanager
def connect(workers: int | None, address: str | None = None) -> Iterator[Cluster]:
    """A cluster inside the block.

    Args:
        workers: processes with a model each; at a cluster with GPUs one a GPU by default.
        address: ``HOST:PORT`` of a running cluster, ``auto``, or ``ray://HOST:PORT``; ``None`` starts one here.

    Raises:
        UsageError: Ray is not installed, no cluster is at the address, or it has fewer GPUs than workers.
    """
    try:
        import ray
    except ImportError:
        raise UsageError(
            'workers need Ray, which is not installed; run: pip install "lvlm-lens[scale]" (or leave --workers and '
            "--ray out)"
        ) from None
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers}: give a whole number of at least 1")
    scratch = None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine unasked
    try:
        if address is None:
            if workers is None:
                raise UsageError("how many workers? write --workers N, or --ray ADDRESS of a running cluster")
            # three lines that a token guards this cluster, which nobody else uses
            logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
            # a short path: the sockets inside may not be longer than 107 bytes
            scratch = tempfile.mkdtemp(prefix="lens-")
            ray.init(include_dashboard=False, object_store_memory=_STORE_BYTES, _temp_dir=scratch, **quiet)
        else:
            _ask(address)
            try:
                ray.init(address=address, **quiet)
            except (ConnectionError, OSError, RuntimeError, ValueError) as error:
                raise _nobody(address, str(error)) from error
        yield _described(ray, workers, local=address is None)
    finally:
        if ray.is_initialized():
            ray.shutdown()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _described(ray: Any, workers: int | None, local: bool) -> Cluster:
    gpus = int(ray.cluster_resources().get("GPU", 0))
    wanted = workers or gpus or len(ray.nodes())
    if gpus and wanted > gpus:
        raise UsageError(f"--workers {wanted}, and the cluster has {gpus} GPUs; give at most as many")
    share = wanted if local else -(-wanted // max(1, len(ray.nodes())))
    return Cluster(wanted, int(gpus > 0), threads_of(share), local)


def _ask(address: str) -> None:
    """Raise at once where nobody listens: Ray itself would try for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return  # ``auto`` and the like
    if not port.isdigit():
        raise UsageError(f"--ray {address!r} is no address; write HOST:PORT, ray://HOST:PORT or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise _nobody(address, str(error)) from error


def _nobody(address: str, why: str) -> UsageError:
    return UsageError(
        f"no Ray cluster answers at {address!r} ({why.splitlines()[0] if why else 'no reason given'}); start one with "
        "`ray start --head` on one machine and `ray start --address HOST:6379` on the others, or use --workers N here"
    )
