"""What driver and ledger cost, and what a second worker is worth.

Three questions, each answered in one run:

* **driver**: shards of a *null forward* (nothing is computed; the ledger's entry is committed and synced as always) by
  one and two workers, so that everything but the work is on the clock;
* **ledger**: entries committed one after another without Ray, and how long it takes to find one's place among them;
* **workers**: captures of a tiny real LLaVA by one and by two workers of one thread each, by turns in several rounds,
  from the first shards handed out to the last one committed, loading apart.  Two workers cannot do more than twice
  one's work: a ratio above that says that the machine was busy with something else, and no efficiency is reported.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from ..config import SweepConfig
from ..scale import Cluster, connect, run_job
from ..scale.job import Job, Opened, State
from ..scale.jobs.capture import CaptureJob
from ..storage.folder import Folder
from ..storage.ledger import Entry, Ledger

TARGETS = {"driver_ms": 2.0, "restart_seconds": 10.0, "efficiency": 0.9}
"""Fixed before anything was measured: most milliseconds a shard, most seconds to find one's place among 10^5 shards,
and least share of twice one worker's speed that two reach."""


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
            ledger.commit(Entry(int(shard), [int(shard)], 1, [1]))
            return "done"

        return Opened([str(shard) for shard in range(self.count)], compute)


class _Clock:
    """Seconds from the first shard handed out to the last one in."""

    def __init__(self) -> None:
        self.begin = self.end = 0.0
        self.done: list[tuple[float, int]] = []

    def __call__(self, state: State) -> None:
        self.end = time.perf_counter()
        self.done.append((self.end, state.done))

    def seconds_a_shard(self, skip: int) -> float:
        """Mean over the shards after the first ``skip``: by then every worker has opened the job."""
        (first, begun), (last, ended) = self.done[skip], self.done[-1]
        return (last - first) / (ended - begun)


def _run(job: Job, cluster: Cluster, skip: int) -> float:
    clock = _Clock()
    run_job(job, cluster, progress=clock)
    return clock.seconds_a_shard(skip)


ROUNDS = 3
"""Captures by one and by two workers, by turns."""
_BUSY = 1.05
"""A median ratio above it is no efficiency but another load on the machine."""


def bench_scale(counts: Sequence[int] = (1_000, 10_000), entries: int = 100_000, items: int = 600) -> dict[str, Any]:
    """Measure; ``counts`` of null shards, ``entries`` of the ledger, ``items`` of the capture."""
    found: dict[str, Any] = {"targets": TARGETS, "driver": [], "workers": []}
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        for workers in (1, 2):
            with connect(workers) as cluster:
                for count in counts:
                    each = _run(NullForward(str(home / f"null-{workers}-{count}"), count), cluster, count // 5)
                    found["driver"].append({"workers": workers, "shards": count, "ms_a_shard": 1000 * each})
        for turn in range(ROUNDS):
            for workers in (1, 2):
                config = SweepConfig(limit=items, batch_size=4)
                store = str(home / f"store-{turn}-{workers}")
                job = CaptureJob(config, store, ("resid_post", "attn_out", "mlp_out"), "all")
                with connect(workers) as cluster:
                    each = _run(job, cluster, 6)
                    row = {"round": turn, "workers": workers, "threads": cluster.threads, "s_a_shard": each}
                found["workers"].append(row)
        ratios = _ratios(found["workers"])
        found["ratios"] = ratios
        found["efficiency"] = median(ratios) if median(ratios) <= _BUSY else None
        found["ledger"] = _ledger(home / "ledger", entries)
    found["reached"] = {
        "driver_ms": max(row["ms_a_shard"] for row in found["driver"]) <= TARGETS["driver_ms"],
        "restart_seconds": found["ledger"]["find_place_s"] * 1e5 / entries <= TARGETS["restart_seconds"],
        "efficiency": None if found["efficiency"] is None else found["efficiency"] >= TARGETS["efficiency"],
    }
    return found


def _ratios(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Speed of two workers over twice that of one, round by round."""
    seconds = {(row["round"], row["workers"]): row["s_a_shard"] for row in rows}
    return [seconds[turn, 1] / (2 * seconds[turn, 2]) for turn in range(ROUNDS)]


def _ledger(folder: Path, entries: int) -> dict[str, Any]:
    ledger = Ledger(Folder(folder))
    start = time.perf_counter()
    for shard in range(entries):
        ledger.commit(Entry(shard, [shard], 1, [1]))
    commit = (time.perf_counter() - start) / entries
    again = Ledger(Folder(folder))
    start = time.perf_counter()
    known = again.shards()
    find = time.perf_counter() - start
    assert len(known) == entries
    start = time.perf_counter()
    again.finished()
    return {
        "entries": entries, "commit_ms": 1000 * commit, "find_place_s": find,
        "read_all_s": time.perf_counter() - start, "bytes": sum(path.stat().st_size for path in folder.rglob("*.json")),
    }  # fmt: skip


def scale_table(found: dict[str, Any]) -> str:
    """The record as text."""
    word = {True: "reached", False: "MISSED", None: "cannot be told, the machine was busy with something else"}
    reached, kept = found["reached"], found["ledger"]
    lines = ["null forwards (nothing is computed; every shard's entry is committed and synced)"]
    for row in found["driver"]:
        lines.append(f"  {row['workers']} workers, {row['shards']:>7,} shards: {row['ms_a_shard']:.2f} ms a shard")
    ratios = ", ".join(f"{ratio:.2f}" for ratio in found["ratios"])
    lines += [
        f"  target {TARGETS['driver_ms']:g} ms: {word[reached['driver_ms']]}",
        f"ledger of {kept['entries']:,} entries: {kept['commit_ms']:.2f} ms a commit, {kept['bytes'] / 2**20:.0f} MiB",
        f"  a restart finds its place in {kept['find_place_s']:.2f} s (all entries: {kept['read_all_s']:.1f} s)",
        f"  target {TARGETS['restart_seconds']:g} s for 100,000: {word[reached['restart_seconds']]}",
        f"capture of mini, one thread a worker: two workers at {ratios} of twice one, round by round",
        f"  target {TARGETS['efficiency']:g} in the median: {word[reached['efficiency']]}",
    ]
    return "\n".join(lines)
