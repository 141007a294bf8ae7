"""Writing chunks while the next forward runs.

The forward's hooks hand over each site as soon as it is read; one thread lays the pieces of a shard
into whole chunks, writes them, waits until they are on the device, and commits the shard's ledger
entry.  The queue is short, so a disk slower than the model slows the model down and memory stays
bounded.  An error in the thread is raised at the next hand-over, or when the writer is closed.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..storage.commit import flush_file, flush_folder, writing
from ..storage.layout import ArrayPlan, as_bits
from ..storage.ledger import Entry, checksum
from .store import ActivationStore

Part = tuple[list[int], torch.Tensor, list[int]]
"""Slots of the shard, values ``[row, position, ...]`` (or ``[row, ...]``), real positions in each row."""

_QUEUED = 4


class StoreWriter:
    """The writing thread of one store.  Use as a context manager: leaving it waits for the disk."""

    def __init__(self, store: ActivationStore) -> None:
        self.store = store
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue(_QUEUED)
        self._error: BaseException | None = None
        self._checksums: dict[int, dict[str, str]] = {}
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    # -- called by the forward's thread ------------------------------------------------------

    def put(self, shard: int, plan: ArrayPlan, parts: list[Part], width: int) -> None:
        """Hand over one site of a shard; blocks while the queue is full."""
        self._submit(lambda: self._write(shard, plan, parts, width))

    def commit(self, entry: Entry) -> None:
        """Hand over the end of a shard: once its chunks are on the device its rows are finished."""
        self._submit(lambda: self._commit(entry))

    def _submit(self, task: Callable[[], None]) -> None:
        self._raise()
        self._tasks.put(task)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None and self._error is None:
            self._error = RuntimeError("the capture ended early")  # what is queued is unfinished: leave it
        self._tasks.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    # -- the thread --------------------------------------------------------------------------

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if self._error is not None:
                continue  # keep taking, so that no one waits for room forever
            try:
                task()
            except BaseException as error:  # handed to the other thread, which raises it
                self._error = error

    def _write(self, shard: int, plan: ArrayPlan, parts: list[Part], width: int) -> None:
        layout, folder = self.store.layout, self.store.folder
        columns = layout.columns(width) if plan.ragged else 1
        with writing(f"{folder.address}/arrays/{plan.name}"):
            if plan.ragged and not self.store.zarr.fits(columns * layout.chunk_width):
                with self.store.claims.hold("grow"):
                    self.store.zarr.reopen()
                    self.store.zarr.grow(columns * layout.chunk_width)
            whole = self._lay(plan, parts, columns)
            for column in range(columns):
                step = layout.chunk_width
                chunk = np.ascontiguousarray(whole[:, column * step : (column + 1) * step]) if plan.ragged else whole
                self.store.zarr.write(plan, shard, column, chunk)
                key = layout.key(plan, shard, column)
                self._checksums.setdefault(shard, {})[key] = checksum(chunk.data)

    def _lay(self, plan: ArrayPlan, parts: list[Part], columns: int) -> np.ndarray:
        """The pieces of a shard in one array ``[shard row, position, ...]``, fill where there is nothing."""
        layout = self.store.layout
        shape = (layout.shard_rows, *((columns * layout.chunk_width,) if plan.ragged else ()), *plan.trailing)
        slots, values, counts = parts[0]
        if len(parts) == 1 and values.shape == shape and (not plan.ragged or min(counts) == shape[1]):
            return as_bits(values.contiguous())  # full as it is: nothing to lay
        whole = np.full(shape, plan.fill, dtype=plan.disk)
        for slots, values, counts in parts:
            bits = as_bits(values)
            if not plan.ragged or min(counts) == bits.shape[1]:
                whole[(slots, slice(bits.shape[1])) if plan.ragged else slots] = bits
                continue
            for slot, row, count in zip(slots, bits, counts, strict=True):
                whole[slot, :count] = row[:count]
        return whole

    def _commit(self, entry: Entry) -> None:
        checksums = self._checksums.pop(entry.shard, {})
        root = self.store.folder.local
        if root is not None:
            with writing(str(root)):
                places = [root / "arrays" / key for key in checksums]
                for place in places:
                    flush_file(place)
                for parent in sorted({place.parent for place in places}):
                    flush_folder(parent)
        self.store.ledger.commit(
            Entry(entry.shard, entry.rows, entry.width, entry.counts, entry.left_out, dict(sorted(checksums.items())))
        )
        self.store.claims.release(entry.shard)
