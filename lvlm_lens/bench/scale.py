"""What driver and ledger cost, and what a second worker is worth.

Three parts, each answered in one run and recorded with the load of the machine at the time:

* **driver**: shards of a *null forward* (nothing is computed; the ledger's entry is committed and synced as always).
  ``cpu_ms`` is what the driver's own process spends on a shard (its Python and Ray's threads in it), which is what
  bounds how many shards a second it can hand out, and what the target is about; ``wall_ms`` is the time from shard to
  shard, in which the worker also waits for its disk.  Then the same command again, which finds everything done.
* **ledger**: what one more commit costs in an empty ledger and in one of many entries, and how long it takes to find
  one's place in it.  The many are written in the same form but without waiting for the device, commit by commit: that
  would take hours and measure the disk.
* **workers**: captures of a tiny real LLaVA by one and by two workers, by turns in several rounds, from the first
  shards handed out to the last one committed, loading apart.  Each worker has one thread, and one core to itself, as it
  would have a device.  Two workers cannot do more than twice one's work: a ratio above that says that the machine was
  busy with something else, and no efficiency is reported.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

from filelock import FileLock, Timeout

from ..config import SweepConfig
from ..errors import UsageError
from ..scale import Cluster, connect, run_job
from ..scale.job import Job, Opened, State
from ..scale.jobs.capture import CaptureJob
from ..storage.commit import write_atomic
from ..storage.folder import Folder
from ..storage.ledger import Entry, Ledger

TARGETS = {"driver_ms": 2.0, "restart_seconds": 10.0, "efficiency": 0.9}
"""Fixed before anything was measured: most milliseconds a shard, most seconds to find one's place among 10^5 shards,
and least share of twice one worker's speed that two reach."""
RUNS = ((1, 1_000), (2, 1_000), (4, 10_000), (2, 100_000))
"""Workers and null shards."""
ENTRIES = (100_000, 1_000_000)
COMMITS = 300
"""Commits that are timed in a ledger."""
ROUNDS = 3
"""Captures by one and by two workers, by turns."""
ITEMS = 600
_BUSY = 1.05
"""A median ratio above it is no efficiency but another load on the machine."""


@dataclass(frozen=True)
class NullForward:
    """Shards that compute nothing and are committed as every shard is."""

    folder: str
    count: int
    title: str = "null forwards"

    def finished(self) -> set[str]:
        """Shards in the ledger."""
        return {str(shard) for shard in Ledger(Folder(self.folder)).shards()}

    def open(self) -> Opened:
        """Nothing to load."""
        ledger = Ledger(Folder(self.folder))

        def compute(shard: str) -> Literal["done", "busy"]:
            ledger.commit(_entry(int(shard)))
            return "done"

        return Opened([str(shard) for shard in range(self.count)], compute)


@dataclass(frozen=True)
class OnOneCore:
    """A capture whose worker keeps to one core of its own (where the system can do that)."""

    job: CaptureJob

    @property
    def title(self) -> str:
        """The capture's own."""
        return self.job.title

    @property
    def folder(self) -> str:
        """The capture's own."""
        return self.job.folder

    def finished(self) -> set[str]:
        """The capture's own."""
        return self.job.finished()

    def open(self) -> Opened:
        """Take the first core that no other worker has."""
        if hasattr(os, "sched_setaffinity"):
            for core in sorted(os.sched_getaffinity(0)):
                lock = FileLock(f"{self.folder}.core{core}", timeout=0, thread_local=False)
                try:
                    lock.acquire()
                except Timeout:
                    continue
                _cores.append(lock)
                for thread in Path("/proc/self/task").iterdir():
                    os.sched_setaffinity(int(thread.name), {core})
                break
        return self.job.open()


_cores: list[FileLock] = []
"""Held until the worker's process ends."""


def _entry(shard: int) -> Entry:
    return Entry(shard, [shard], 1, [1])


class _Clock:
    """Seconds of the wall and of this process, from shard to shard."""

    def __init__(self) -> None:
        self.done: list[tuple[float, float, int]] = []

    def __call__(self, state: State) -> None:
        self.done.append((time.perf_counter(), time.process_time(), state.done))

    def a_shard(self, skip: int) -> tuple[float, float]:
        """Mean over the shards after the first ``skip``: by then every worker has opened the job."""
        first, last = self.done[skip], self.done[-1]
        shards = last[2] - first[2]
        return (last[0] - first[0]) / shards, (last[1] - first[1]) / shards


def _run(job: Job, cluster: Cluster, skip: int) -> tuple[float, float]:
    clock = _Clock()
    run_job(job, cluster, progress=clock)
    return clock.a_shard(skip)


def bench_driver(home: Path, runs: Sequence[tuple[int, int]] = RUNS) -> dict[str, Any]:
    """Null forwards by some workers, and the last of the commands once more."""
    rows = []
    restart: dict[str, Any] = {}
    for workers, count in runs:
        job = NullForward(str(home / f"null-{workers}-{count}"), count)
        with connect(workers) as cluster:
            wall, cpu = _run(job, cluster, count // 5)
            rows.append({"workers": workers, "shards": count, "cpu_ms": 1000 * cpu, "wall_ms": 1000 * wall})
            start = time.perf_counter()
            found = len(job.finished())
            restart = {"shards": found, "find_place_s": time.perf_counter() - start}
            run_job(job, cluster)
            restart["whole_s"] = time.perf_counter() - start - restart["find_place_s"]
    slowest = max(row["cpu_ms"] for row in rows)
    return {"rows": rows, "shards_a_second_at_most": 1000 / slowest, "restart": restart}


def bench_ledger(home: Path, sizes: Sequence[int] = ENTRIES) -> dict[str, Any]:
    """Ledgers of some sizes."""
    return {"rows": [_ledger(home / f"ledger-{entries}", entries) for entries in sizes]}


def _ledger(folder: Path, entries: int) -> dict[str, Any]:
    ledger = Ledger(Folder(folder))
    empty = _commits(ledger, 0)
    place = f"{folder}/{ledger.place}"
    for shard in range(COMMITS, entries - COMMITS):
        with open(f"{place}/{shard:06d}.json", "w", encoding="utf-8") as file:  # half of what a Path costs
            json.dump(asdict(_entry(shard)), file, sort_keys=True, indent=1)
    full = _commits(ledger, entries - COMMITS)
    again = Ledger(Folder(folder))
    start = time.perf_counter()
    known = again.shards()
    find = time.perf_counter() - start
    if len(known) != entries:
        raise UsageError(f"{len(known)} entries where {entries} were written")
    start = time.perf_counter()
    again.finished()
    return {
        "entries": entries, "commit_ms_empty": empty, "commit_ms_full": full, "find_place_s": find,
        "read_all_s": time.perf_counter() - start,
    }  # fmt: skip


def _commits(ledger: Ledger, first: int) -> float:
    """Median milliseconds of a commit."""
    spent = []
    for shard in range(first, first + COMMITS):
        start = time.perf_counter()
        ledger.commit(_entry(shard))
        spent.append(time.perf_counter() - start)
    return 1000 * median(spent)


def bench_workers(home: Path, items: int = ITEMS) -> dict[str, Any]:
    """Captures by one and by two workers, by turns."""
    rows = []
    for turn in range(ROUNDS):
        for workers in (1, 2):
            config = SweepConfig(limit=items, batch_size=4)
            store = str(home / f"store-{turn}-{workers}")
            job = OnOneCore(CaptureJob(config, store, ("resid_post", "attn_out", "mlp_out"), "all"))
            with connect(workers) as cluster:
                wall, _ = _run(job, replace(cluster, threads=1), 6)
                rows.append({"round": turn, "workers": workers, "s_a_shard": wall})
    seconds = {(row["round"], row["workers"]): row["s_a_shard"] for row in rows}
    ratios = [seconds[turn, 1] / (2 * seconds[turn, 2]) for turn in range(ROUNDS)]
    return {"rows": rows, "ratios": ratios, "efficiency": median(ratios) if median(ratios) <= _BUSY else None}


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "driver": bench_driver, "ledger": bench_ledger, "workers": bench_workers,
}  # fmt: skip


def bench_scale(parts: Sequence[str] = tuple(PARTS), record: Path | None = None) -> dict[str, Any]:
    """Measure some parts; the others are those of ``record``, a file that an earlier run wrote, where it is there.

    Raises :class:`UsageError` for a part that does not exist.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise UsageError(f"no part {unknown[0]!r} of bench scale; write any of {', '.join(PARTS)}")
    found: dict[str, Any] = {}
    if record is not None and record.is_file():
        found = {part: kept for part, kept in json.loads(record.read_text()).items() if part in PARTS}
    for part in parts:
        with tempfile.TemporaryDirectory() as home:
            load = os.getloadavg()[0]
            found[part] = {**PARTS[part](Path(home)), "load_at_start": load, "cores": os.cpu_count()}
            if record is not None:
                write_atomic(record, json.dumps(_judged(found), indent=2) + "\n")
    return _judged(found)


def _judged(found: dict[str, Any]) -> dict[str, Any]:
    """The parts that are there, beside the targets and which of them were reached."""
    reached: dict[str, bool | None] = {}
    if "driver" in found:
        reached["driver_ms"] = max(row["cpu_ms"] for row in found["driver"]["rows"]) <= TARGETS["driver_ms"]
        restart = found["driver"]["restart"]
        # an estimate from fewer shards is scaled up
        seconds = restart["find_place_s"] * max(1.0, 1e5 / restart["shards"])
        reached["restart_seconds"] = seconds <= TARGETS["restart_seconds"]
    if "workers" in found:
        efficiency = found["workers"]["efficiency"]
        reached["efficiency"] = None if efficiency is None else efficiency >= TARGETS["efficiency"]
    return {**{part: found[part] for part in PARTS if part in found}, "targets": TARGETS, "reached": reached}


def scale_table(found: dict[str, Any]) -> str:
    """The record as text."""
    word = {True: "reached", False: "MISSED", None: "cannot be told, the machine was busy with something else"}
    reached, lines = found["reached"], []
    if "driver" in found:
        driver = found["driver"]
        restart = driver["restart"]
        lines.append("null forwards (nothing is computed; every shard's entry is committed and synced)")
        lines += [
            f"  {row['workers']} workers, {row['shards']:>7,} shards: the driver's own {row['cpu_ms']:.2f} ms a shard "
            f"({row['wall_ms']:.2f} ms on the wall, the worker's disk included)"
            for row in driver["rows"]
        ]
        lines += [
            f"  target {TARGETS['driver_ms']:g} ms of the driver's own: {word[reached['driver_ms']]}",
            f"  it saturates at {driver['shards_a_second_at_most']:,.0f} shards a second: with shards of 10 s, at "
            f"{10 * driver['shards_a_second_at_most']:,.0f} workers",
            f"  the same command again, {restart['shards']:,} shards done: {restart['find_place_s']:.2f} s to find its "
            f"place, {restart['whole_s']:.1f} s with the start of a worker",
            f"  target {TARGETS['restart_seconds']:g} s at 100,000: {word[reached['restart_seconds']]}",
        ]
    for row in found.get("ledger", {}).get("rows", ()):
        lines.append(
            f"ledger of {row['entries']:,} entries: {row['commit_ms_full']:.2f} ms a commit (empty: "
            f"{row['commit_ms_empty']:.2f}), place found in {row['find_place_s']:.2f} s, all read in "
            f"{row['read_all_s']:.1f} s"
        )
    if "workers" in found:
        ratios = ", ".join(f"{ratio:.2f}" for ratio in found["workers"]["ratios"])
        lines += [
            f"capture of mini, one core a worker: two workers at {ratios} of twice one, round by round",
            f"  target {TARGETS['efficiency']:g} in the median: {word[reached['efficiency']]}",
        ]
    return "\n".join(lines)
