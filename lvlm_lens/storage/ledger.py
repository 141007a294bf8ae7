"""The ledger of finished rows, and the claims of writers that work at the same time.

Rows are written in shards.  A shard counts as finished when, and only when, its entry stands in
the ledger: one small file a shard, committed whole after every one of the shard's chunks is on
the device.  Entries are only ever added.  Each holds the rows, what was left out and why, and the
checksum (XXH3, 64 bits) of every chunk, so that a flipped bit or a cut file is seen when it is read.

A claim keeps two writers from doing one shard twice.  On a disk it is a lock that the system
lets go when its process dies, however it dies.  At a remote address, where there are no locks, it is
a small object with the writer's token that goes stale after :data:`STALE_SECONDS`; should two
writers ever get past each other there, the same rows are computed twice and the later entry counts.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import xxhash
from filelock import FileLock, Timeout

from ..errors import RunFolderError
from .commit import writing
from .folder import Folder

STALE_SECONDS = 1800.0
"""A claim at a remote address older than this is taken over."""


def checksum(data: Any) -> str:
    """XXH3-64 of a bytes-like object, in hexadecimal."""
    return xxhash.xxh3_64_hexdigest(data)


@dataclass(frozen=True)
class Entry:
    """One finished shard.

    Attributes:
        shard: its number.
        rows: for each row of the shard, the row of the data set.
        width: positions in its longest row.
        counts: real positions in each row; 0 where the sample was left out.
        left_out: reason by data-set row.
        checksums: chunk key (``array/i/j/...``) to checksum.
    """

    shard: int
    rows: list[int]
    width: int
    counts: list[int]
    left_out: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)


class Ledger:
    """Finished shards of the store in ``folder``."""

    place = "ledger"

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._known: dict[int, Entry] = {}

    def finished(self) -> dict[int, Entry]:
        """Every committed entry, by shard."""
        for name in self.folder.names(self.place):
            if name.startswith(".") or not name.endswith(".json"):
                continue  # a temporary file of a writer that was killed
            number = int(name.removesuffix(".json"))
            if number not in self._known:
                self._known[number] = self._read(name)
        return dict(sorted(self._known.items()))

    def shards(self) -> set[int]:
        """Numbers of the finished shards, without opening their entries."""
        names = self.folder.names(self.place)
        return {int(name.removesuffix(".json")) for name in names if name.endswith(".json") and name[0] != "."}

    def _read(self, name: str) -> Entry:
        try:
            entry = Entry(**json.loads(self.folder.read(f"{self.place}/{name}")))
        except (ValueError, TypeError) as error:
            raise RunFolderError(
                f"{self.folder.address}/{self.place}/{name} is damaged ({error}); remove that file and run the same "
                "command again, its rows are then computed anew"
            ) from error
        return entry

    def has(self, shard: int) -> bool:
        """True when the shard is finished, by whichever writer."""
        return shard in self._known or self.folder.exists(f"{self.place}/{shard:06d}.json")

    def commit(self, entry: Entry) -> None:
        """Add an entry: from this moment its rows are finished."""
        text = json.dumps(asdict(entry), sort_keys=True, indent=1)
        self.folder.commit(f"{self.place}/{entry.shard:06d}.json", text.encode())
        self._known[entry.shard] = entry

    def drop(self, shard: int) -> None:
        """Take back an entry whose chunks are damaged, so that its rows are computed anew."""
        self._known.pop(shard, None)
        self.folder.remove(f"{self.place}/{shard:06d}.json")


class Claims:
    """Which shards this writer is working on.

    ``token`` is this writer's name at a remote address; workers of one run share theirs, so that a claim of one that
    died is taken over by the next at once.
    """

    place = "claims"

    def __init__(self, folder: Folder, token: str | None = None) -> None:
        self.folder = folder
        self._held: dict[int | str, FileLock | None] = {}  # no lock at a remote address
        self._token = token or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"

    def take(self, shard: int | str) -> bool:
        """Claim a shard (or another piece of work, by name); False when another living writer has it."""
        name = self._name(shard)
        if self.folder.local is not None:
            path = self.folder.local / name
            with writing(str(path)):
                path.parent.mkdir(parents=True, exist_ok=True)
                # not thread-local: the main thread claims, the writer's thread lets go
                lock = FileLock(path, timeout=0, thread_local=False)
                try:
                    lock.acquire()
                except Timeout:
                    return False
            self._held[shard] = lock
            return True
        holder = self._holder(name)
        if holder is not None and holder["token"] != self._token and time.time() - holder["time"] < STALE_SECONDS:
            return False
        self.folder.commit(name, json.dumps({"token": self._token, "time": time.time()}).encode())
        holder = self._holder(name)
        if holder is None or holder["token"] != self._token:
            return False
        self._held[shard] = None
        return True

    def _holder(self, name: str) -> dict[str, Any] | None:
        try:
            return json.loads(self.folder.read(name))
        except FileNotFoundError:
            return None

    def _name(self, shard: int | str) -> str:
        return f"{self.place}/{f'{shard:06d}' if isinstance(shard, int) else shard}.lock"

    @contextmanager
    def hold(self, work: str, seconds: float = 60.0) -> Iterator[None]:
        """Wait for a claim and hold it inside the block."""
        until = time.monotonic() + seconds
        while not self.take(work):
            if time.monotonic() > until:
                raise RunFolderError(f"{self.folder.address}: another writer holds {work!r} for over {seconds:.0f} s")
            time.sleep(0.02)
        try:
            yield
        finally:
            self.release(work)

    def release(self, shard: int | str) -> None:
        """Let a shard go."""
        if shard not in self._held:
            return
        lock = self._held.pop(shard)
        if lock is not None:
            lock.release()
        else:
            self.folder.remove(self._name(shard))

    def release_all(self) -> None:
        """Let everything go that is still held: an error ended the work early."""
        for work in list(self._held):
            self.release(work)

    def clear(self) -> None:
        """Remove the claims' own files once every shard is finished."""
        if self.folder.local is None:
            return
        place = self.folder.local / self.place
        for path in place.glob("*.lock"):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: a writer that is still there will clear it
            place.rmdir()
