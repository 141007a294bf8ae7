"""``--workers`` and ``--ray``: of every command whose work can be shared."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError

if TYPE_CHECKING:
    from ..scale.job import Job


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Who computes."""
    add = parser.add_argument_group("workers (needs lvlm-lens[scale]; docs/scale.md)").add_argument
    add("--workers", type=int, metavar="N", help="processes with a model each, one a GPU (default: this process alone)")
    add("--ray", metavar="ADDRESS", help="a running Ray cluster, HOST:PORT or auto (default: this machine)")


def asked_for(options: argparse.Namespace) -> bool:
    """Whether workers are wanted."""
    return options.workers is not None or options.ray is not None


def shared_folder(out: str | Path | None, command: str, option: str = "--out", addresses: bool = False) -> str:
    """The run folder as every worker can name it.

    Raises :class:`UsageError` where none was given, or an fsspec address where only a folder will do.
    """
    if out is None:
        raise UsageError(f"{command} with workers needs {option} DIR: what they compute is kept there")
    text = str(out)
    if re.match(r"\w[\w+.-]+:/", text):  # a path has lost one of the two slashes
        if addresses:
            return text
        raise UsageError(f"{command} writes to folders, and {text!r} is an address; give one that all nodes share")
    return str(Path(text).expanduser().absolute())


def run_jobs(options: argparse.Namespace, jobs: Sequence[Job], settings: Any = None) -> None:
    """Have workers compute every shard of each job, one job after the other.

    Args:
        options: parsed; jobs: what is computed.
        settings: of the run; a device of its own cannot be named, since each worker has another.

    Raises:
        UsageError: ``--device`` or ``--device-map`` is given too.
        LensError: as :func:`~lvlm_lens.scale.pool.run_job` raises it.
    """
    for name in ("device", "device_map"):
        if getattr(settings if settings is not None else options, name, None) is not None:
            raise UsageError(f"--{name.replace('_', '-')} and workers exclude each other: every worker has one device")
    from ..scale import connect, run_job

    # Ray prints what happens to its processes on stdout, where --json stands
    with redirect_stdout(sys.stderr), connect(options.workers, options.ray) as cluster:
        for job in jobs:
            run_job(job, cluster, say=None if options.quiet else lambda line: print(line, file=sys.stderr))
