"""The driver: hands shards to workers, takes back those of the dead, and counts.

The ledger in the run folder is the only truth.  A shard is handed out again where its worker died, so it may be
computed twice; its commit is idempotent.  Ray's own retries and restarts stay off: a shard in flight on a lost node
would wait for ever for a free place, while here any living worker takes it.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import LensError, ModelError, RunFolderError
from ..progress import stage, step
from .cluster import Cluster
from .job import Job, State
from .worker import Failure, Place, Worker

_AHEAD = 2
"""Shards a worker has in hand: the next one is there when the first ends."""
_POLL_SECONDS = 0.5
"""How often the ledger is asked for shards that writers outside this run have claimed."""
_PATIENCE_SECONDS = 120.0
"""After so long without any worker the driver says that it waits."""


def run_job(
    job: Job,
    cluster: Cluster,
    deaths: int = 2,
    progress: Callable[[State], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Have every shard of a job computed; returns when all are in the ledger.

    Args:
        job: what is computed.
        cluster: of :func:`~.cluster.connect`.
        deaths: how often a shard is handed out again after the death of its worker.
        progress: called whenever a shard ends.
        say: called with a sentence when a worker dies, or none has a place.

    Raises:
        LensError: of the first shard that failed, or of loading, as the worker raised it.  Errors are not retried.
        ModelError: a shard, or loading, took ``deaths + 1`` workers with it.
        RunFolderError: a worker does not see the run folder.
    """
    with _witness(job.folder) as witness, stage(job.title):
        place = Place(str(Path.cwd()), witness, cluster.threads)
        _Driver(job, cluster, place, deaths, progress, say).run()


class _Seat:
    """A place for one worker; a dead one is replaced."""

    def __init__(self, driver: _Driver) -> None:
        self.driver = driver
        self.hand: deque[tuple[Any, str]] = deque()  # (reference, shard), in the order of computing
        self.sit()

    def sit(self) -> None:
        """Start a worker; it takes its place as soon as the cluster has one."""
        self.worker: Any = self.driver.actor.remote()
        self.opening = self.worker.open.remote(self.driver.job, self.driver.place)
        self.ready = False

    def give(self, shard: str) -> None:
        self.hand.append((self.worker.run.remote(shard), shard))

    @property
    def next(self) -> Any:
        """The reference that ends next; ``None`` for a worker without work."""
        if not self.ready:
            return self.opening
        return self.hand[0][0] if self.hand else None


class _Driver:
    def __init__(
        self,
        job: Job,
        cluster: Cluster,
        place: Place,
        deaths: int,
        progress: Callable[[State], None] | None,
        say: Callable[[str], None] | None,
    ) -> None:
        import ray

        self.ray, self.job, self.cluster, self.place = ray, job, cluster, place
        # no core is reserved, so that the driver keeps one; spread, because nothing else says where a CPU worker goes
        self.actor: Any = ray.remote(
            num_cpus=0, num_gpus=cluster.gpus, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )(Worker)
        self.planned = False  # until the first worker has opened the job
        self.waiting: deque[str] = deque()
        self.elsewhere: list[str] = []  # claimed by writers outside this run
        self.done = self.total = 0
        self.deaths, self.died, self.lost_opening = deaths, Counter[str](), 0
        self.alone: set[str] = set()  # a worker died with these in hand
        self.given_up: list[str] = []
        self.progress, self.say = progress, say or (lambda text: None)
        self.patience = time.monotonic() + _PATIENCE_SECONDS
        self.seats: list[_Seat] = []

    def run(self) -> None:
        """Work until nothing is left; workers end with this call, however it ends."""
        try:
            self.seats = [_Seat(self) for _ in range(self.cluster.workers)]
            while not self.planned or self.waiting or self.elsewhere or any(seat.hand for seat in self.seats):
                self._hand_out()
                self._collect()
                self._ask_elsewhere()
        finally:
            for seat in self.seats:
                with suppress(Exception):
                    self.ray.kill(seat.worker)
        if self.given_up:
            raise ModelError(
                f"{', '.join(self.given_up)}: {self.deaths + 1} workers died over it (out of memory? see the system's "
                "log); everything else is kept: the same command tries it again"
            )

    def _plan(self, shards: list[str]) -> None:
        """What is left to do, once the first worker has said what there is."""
        self.planned = True
        finished = self.job.finished()
        self.waiting = deque(shard for shard in shards if shard not in finished)
        self.total, self.done = len(shards), len(shards) - len(self.waiting)
        self._tell()

    def _hand_out(self) -> None:
        for depth in range(1, _AHEAD + 1):  # everyone has one before anyone has two
            if depth > 1 and len(self.waiting) <= len(self.seats):
                return  # the last ones wait for whoever is free first: behind a long shard another might lie idle
            for seat in self.seats:
                if self.waiting and seat.ready and len(seat.hand) < depth and self._may_join(seat):
                    seat.give(self.waiting.popleft())

    def _may_join(self, seat: _Seat) -> bool:
        """A shard over which a worker may have died shares no hand with another."""
        return not seat.hand or self.alone.isdisjoint([self.waiting[0], seat.hand[0][1]])

    def _collect(self) -> None:
        """Wait for the next thing to end and take it in."""
        of = {seat.next: seat for seat in self.seats if seat.next is not None}
        if not of:
            time.sleep(_POLL_SECONDS)
            return
        ended, others = self.ray.wait(list(of), num_returns=1, timeout=_POLL_SECONDS)
        if ended and others:  # all that ended by now in one round: with short shards that is most of them
            ended += self.ray.wait(others, num_returns=len(others), timeout=0)[0]
        if ended or any(seat.hand for seat in self.seats):
            self.patience = time.monotonic() + _PATIENCE_SECONDS
        elif time.monotonic() > self.patience:
            waited = f"no worker has had a place for {_PATIENCE_SECONDS:.0f} s"
            self.say(f"{waited}; waiting for one, with {len(self.waiting)} shards to do")
            self.patience = float("inf")  # said once
        for reference in ended:
            seat = of[reference]
            try:
                found = self.ray.get(reference)
            except self.ray.exceptions.RayActorError:
                self._bury(seat)
                continue
            except self.ray.exceptions.RayError as error:  # a job that a worker cannot unpickle, say
                raise LensError(f"{self.job.title}: {error}") from error
            if not seat.ready:
                if isinstance(found, Failure):
                    raise found.raised()
                seat.ready = True
                if not self.planned:
                    self._plan(found)
                continue
            _, shard = seat.hand.popleft()
            if isinstance(found, Failure):
                raise found.raised(f"{self.job.title}, shard {shard}")
            if found == "busy":
                self.elsewhere.append(shard)
            else:
                self.done += 1
            self._tell()

    def _bury(self, seat: _Seat) -> None:
        """Take back what a dead worker had in hand and put another in its place."""
        if not seat.ready:
            self.lost_opening += 1
            if self.lost_opening > self.deaths:
                raise ModelError(
                    f"{self.lost_opening} workers died while they loaded the model (out of memory? fewer workers, or "
                    "a smaller dtype, need less)"
                )
        shards = [shard for _, shard in seat.hand]
        seat.hand.clear()
        if len(shards) > 1:  # an answer may have been lost with its worker, so it is not known which of them it was
            self.alone.update(shards)
            self.say(f"a worker died with shards {', '.join(shards)} in hand; each of them is tried by itself")
        elif shards:
            self._count_death(shards)
        self.waiting.extendleft(reversed(shards))
        with suppress(Exception):
            self.ray.kill(seat.worker)
        seat.sit()

    def _count_death(self, shards: list[str]) -> None:
        """One more death over the only shard in hand, which leaves the list where it was the last that is allowed."""
        self.alone.update(shards)
        begun = shards[0]
        self.died[begun] += 1
        times = f"{self.died[begun]} of {self.deaths + 1} deaths"
        if self.died[begun] > self.deaths:
            self.given_up.append(shards.pop())
            self.say(f"a worker died over shard {begun} ({times}); the shard is given up")
        else:
            self.say(f"a worker died over shard {begun} ({times}); another takes it")

    def _ask_elsewhere(self) -> None:
        if self.elsewhere and not self.waiting and not any(seat.hand for seat in self.seats):
            time.sleep(_POLL_SECONDS)
            finished = self.job.finished()
            self.done += sum(shard in finished for shard in self.elsewhere)
            self.waiting.extend(shard for shard in self.elsewhere if shard not in finished)
            self.elsewhere = []
            self._tell()

    def _tell(self) -> None:
        busy = sum(bool(seat.hand) for seat in self.seats)
        waiting = len(self.waiting) + len(self.elsewhere)
        step(self.done, self.total, f"{busy} of {len(self.seats)} workers busy, {waiting} shards waiting")
        if self.progress is not None:
            self.progress(State(self.done, self.total, busy, len(self.seats), waiting))


@contextmanager
def _witness(folder: str) -> Iterator[str | None]:
    """A file in the run folder for the workers to look for; ``None`` at a remote address, which all reach alike."""
    if "://" in folder:
        yield None
        return
    path = Path(folder) / f".shared-{uuid.uuid4().hex}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("every worker must see this file\n", encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{folder!r} cannot be written ({error.strerror or error}); give another --out") from error
    try:
        yield str(path)
    finally:
        path.unlink(missing_ok=True)
