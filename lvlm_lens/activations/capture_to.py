"""Capturing into a store: the same hooks, with the disk taking each site while the next block runs.

The data set is cut into shards, always in the same way; the writer claims a shard, encodes it (one
batch ahead of the forward), runs it, and hands each site over as its hook fires.  A shard that is in
the ledger is never computed again, so the same command continues a killed run and ends with the same
bytes, and several processes given the same command share the work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import Sample
from ..errors import DataError, LensError, NumericalError, SiteError
from ..models.batching import batches, out_of_memory
from ..models.encode import Encoded
from ..models.loaded import LoadedModel
from ..models.positions import Positions
from ..storage.folder import Folder
from ..storage.layout import ArrayPlan, Layout, chunk_width, torch_name
from ..storage.ledger import Entry
from .ahead import ahead
from .capture import gather_positions
from .features import FeatureCache
from .gather import Picker
from .hooks import attached
from .identity import data_identity, model_identity, sample_record
from .loop import OnError, Progress, encode_readable
from .sites import Site, Tap, expand_sites, tap
from .store import ActivationStore
from .writer import Part, StoreWriter

_PICTURE_SITES = ("image_features", "vision_resid_post")
_SHARD_BYTES = 2**20


def capture_to(
    model: LoadedModel,
    data: Sequence[Sample],
    to: str | Path,
    sites: str | Site | Sequence[str | Site] = "resid_post",
    positions: str | Positions = "last",
    *,
    logits: bool = False,
    dtype: torch.dtype | None = None,
    batch_size: int = 32,
    on_error: OnError | None = None,
    progress: Progress | None = None,
) -> ActivationStore:
    """Run the model over samples and keep chosen sites at chosen positions in a store.

    Calling it again with the same arguments continues where it was stopped, or returns the finished
    store at once; calling it from several processes shares the work.

    Args:
        model, data, sites, positions, logits, batch_size, progress: as for
            :func:`~lvlm_lens.activations.capture`.
        to: a folder, or any fsspec address (``s3://bucket/run``).
        dtype: of the numbers kept; the model's own by default (bfloat16 stays bfloat16).
        on_error: called for a sample that cannot be encoded, which is then left out.

    Raises:
        RunFolderError: ``to`` belongs to another capture (the message lists each differing field), or
            cannot be written.
        SiteError: unknown site or position, a hook that did not fire, or attention patterns, whose
            width changes with the prompt: capture those to memory.
        DataError: no sample could be used.
    """
    if not len(data):
        raise DataError("the data set is empty; nothing can be captured")
    job = StoreJob(model, data, sites, Positions.parse(positions), logits, dtype or model.dtype, batch_size, on_error)
    store = job.open_store(to)
    try:
        job.run(store, progress)
    finally:
        store.claims.release_all()
    if not len(store):
        raise DataError(f"none of the {len(data)} samples could be encoded: {next(iter(store.left_out.values()))}")
    return store


@dataclass
class _Piece:
    """A batch of one shard, encoded; ``last`` where the shard ends with it."""

    shard: int
    rows: list[int]
    encoded: Encoded | None
    good: list[int]
    last: bool


class StoreJob:
    """One capture: what is asked for, and how a shard of it is computed."""

    def __init__(
        self,
        model: LoadedModel,
        data: Sequence[Sample],
        sites: Any,
        spec: Positions,
        logits: bool,
        dtype: torch.dtype,
        batch_size: int,
        on_error: OnError | None,
    ) -> None:
        wanted = expand_sites(sites, model.anatomy)
        if any(site.name == "pattern" for site in wanted):
            raise SiteError("attention patterns have another width for each prompt; capture them to memory")
        self.model, self.data, self.spec, self.dtype, self.batch_size = model, data, spec, dtype, batch_size
        self.keep_logits = logits or any(site.name == "logits" for site in wanted)
        self.taps: list[tuple[Site, Tap]] = [(s, tap(s, model.anatomy)) for s in wanted if s.name != "logits"]
        self.left_out: dict[int, str] = {}
        self.on_error = on_error
        self.features = FeatureCache.for_capture(model, data, [site for site, _ in self.taps])
        self._first: tuple[list[int], dict[str, torch.Tensor]] | None = None
        self._encoding = threading.Lock()  # tokenizers are not made for two threads

    # -- the store ---------------------------------------------------------------------------

    def open_store(self, to: str | Path) -> ActivationStore:
        """The store of this capture, made where it is not there yet."""
        records = [sample_record(sample) for sample in self.data]
        provenance = self.model.provenance()
        identity = {
            "model": model_identity(provenance, self.model.encoder.system),
            "data": data_identity(records),
            "sites": [str(site) for site, _ in self.taps],
            "positions": str(self.spec),
            "dtype": torch_name(self.dtype),
            "logits": self.keep_logits,
            "batch_size": self.batch_size,
        }
        if Folder(to).exists("manifest.json"):
            store = ActivationStore.open(to)
        else:
            versions = {name: metadata.version(name) for name in ("torch", "transformers", "numpy", "zarr")}
            origin = {"model": provenance, "data_set": getattr(self.data, "name", ""), "versions": versions}
            store = ActivationStore.create(to, identity, self._layout(), records, origin)
        store.require(identity)
        return store

    def _layout(self) -> Layout:
        """Shapes: the width of the longest sample, the rest from the first batch, whose numbers are kept for later."""
        for rows in reversed(list(batches(self.data, 1))):
            encoded, _ = self._encode(rows)
            if encoded is not None:
                break
        else:
            raise DataError(f"none of the {len(self.data)} samples could be encoded")
        width = gather_positions(encoded, self.spec)[0].shape[1]
        first = next(batches(self.data, self.batch_size))
        start, good = self._encode(first)
        found: dict[str, torch.Tensor] = {}
        try:
            self._read(encoded if start is None else start, found.__setitem__)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            torch.cuda.empty_cache()
            start = None
            self._read(encoded, found.__setitem__)
        if start is not None:
            self._first = (good, found)
        plans = [ArrayPlan("position", "int32", ())]
        name = torch_name(self.dtype)
        for site, _ in self.taps:
            ragged = site.name not in _PICTURE_SITES
            plans.append(ArrayPlan(str(site), name, tuple(found[str(site)].shape[2 if ragged else 1 :]), ragged))
        if self.keep_logits:
            plans.append(ArrayPlan("logits", "float32", (self.model.anatomy.vocab_size,), ragged=False))
        sizes = [plan.disk.itemsize * int(np.prod(plan.trailing, dtype=np.int64)) for plan in plans if plan.ragged]
        row_bytes = max(sizes)
        # several batches a shard where a chunk would else be tiny
        room = max(1, _SHARD_BYTES // (self.batch_size * width * row_bytes))
        shard_rows = self.batch_size * min(room, 8, -(-len(self.data) // self.batch_size))
        step = chunk_width(width, shard_rows, row_bytes)
        shards = len(list(batches(self.data, shard_rows)))
        return Layout(shards, shard_rows, -(-width // step) * step, step, tuple(plans))

    # -- the work ----------------------------------------------------------------------------

    def run(self, store: ActivationStore, progress: Progress | None) -> None:
        """Finish every shard that no other writer finishes first."""
        shards = list(batches(self.data, store.layout.shard_rows))
        plans = {plan.name: plan for plan in store.layout.arrays}
        while not store.complete:
            done = len(store)
            with StoreWriter(store) as writer:
                parts: dict[str, list[Part]] = {}
                for piece in ahead(self._pieces(store, shards, range(len(shards)))):
                    self._forward(writer, plans, parts, shards[piece.shard], piece)
                    done += len(piece.good)
                    if piece.last:
                        parts = {}
                    if progress is not None:
                        progress(done, len(self.data))
            store.refresh()
            if not store.complete:
                time.sleep(0.05)  # the rest is claimed by others: wait for it, or take it over if they die
        store.tidy()

    def run_shard(self, store: ActivationStore, shard: int) -> bool:
        """Finish one shard; False where another living writer has claimed it."""
        shards = list(batches(self.data, store.layout.shard_rows))
        plans = {plan.name: plan for plan in store.layout.arrays}
        with StoreWriter(store) as writer:
            parts: dict[str, list[Part]] = {}
            for piece in self._pieces(store, shards, [shard]):
                self._forward(writer, plans, parts, shards[shard], piece)
        return store.ledger.has(shard)

    def _pieces(self, store: ActivationStore, shards: list[list[int]], which: Iterable[int]) -> Iterator[_Piece]:
        for shard in which:
            rows = shards[shard]
            if store.ledger.has(shard) or not store.claims.take(shard):
                continue
            if store.ledger.has(shard):  # finished by another between the two questions
                store.claims.release(shard)
                continue
            for start in range(0, len(rows), self.batch_size):
                batch = rows[start : start + self.batch_size]
                encoded, good = self._encode(batch)
                yield _Piece(shard, batch, encoded, good, start + self.batch_size >= len(rows))

    def _encode(self, rows: list[int]) -> tuple[Encoded | None, list[int]]:
        numbers = {self.data[row].id: row for row in rows}

        def note(sample: Sample, error: LensError) -> None:
            assert self.on_error is not None
            self.left_out[numbers[sample.id]] = str(error)
            self.on_error(sample, error)

        with self._encoding:
            encoded, good = encode_readable(self.model, self.data, rows, note if self.on_error is not None else None)
        return encoded, good

    def _forward(
        self,
        writer: StoreWriter,
        plans: dict[str, ArrayPlan],
        parts: dict[str, list[Part]],
        rows: list[int],
        piece: _Piece,
    ) -> None:
        """Run one piece, halving it where memory runs out; commit the shard after its last."""
        work = [(piece.encoded, piece.good)]
        while work:
            encoded, good = work.pop(0)
            try:
                self._record(writer, plans, parts, rows, piece, encoded, good, piece.last and not work)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if len(good) == 1:
                    raise NumericalError(
                        f"out of memory with a single sample ({self.data[good[0]].id!r}); use a smaller dtype or "
                        "device_map"
                    ) from None
                torch.cuda.empty_cache()
                half = len(good) // 2
                work[:0] = [self._encode(good[:half]), self._encode(good[half:])]

    @torch.inference_mode()
    def _read(self, encoded: Encoded, keep: Callable[[str, torch.Tensor], None]) -> None:
        """One forward; each array goes to ``keep`` as its hook fires."""
        index, _ = gather_positions(encoded, self.spec)
        pick = Picker(index)
        keep("position", torch.from_numpy(_token_index(encoded, index)))

        def read(value: torch.Tensor, site: Site) -> None:
            if site.name not in _PICTURE_SITES:
                keep(str(site), pick(value, self.dtype))
            elif len(value) == len(encoded):
                keep(str(site), value.detach().to("cpu", self.dtype, copy=True))
            else:
                raise SiteError(
                    f"{site} holds {len(value)} pictures or patches for {len(encoded)} samples; a store holds it only "
                    "where each sample has one picture"
                )

        ready = self.features.apply(encoded) if self.features is not None else encoded
        with attached([(site, place, read) for site, place in self.taps]):
            head = self.model.logits(ready)
        if self.keep_logits:
            keep("logits", head.cpu())

    def _record(
        self,
        writer: StoreWriter,
        plans: dict[str, ArrayPlan],
        parts: dict[str, list[Part]],
        rows: list[int],
        piece: _Piece,
        encoded: Encoded | None,
        good: list[int],
        last: bool,
    ) -> None:
        """Run one batch; with the last of a shard, hand its arrays over one by one and commit."""
        seen: dict[str, Part] = {}
        slot_of = {row: slot for slot, row in enumerate(rows)}
        slots = [slot_of[row] for row in good]
        counts = [] if encoded is None else [len(self.spec.indices(layout)) for layout in encoded.layouts]
        width = max([0, *counts, *(count for part in parts.get("position", []) for count in part[2])])

        def keep(name: str, value: torch.Tensor) -> None:
            if name in seen:
                raise SiteError(f"{name} fired twice in one forward; its rows cannot be told apart")
            plan = plans[name]
            if tuple(value.shape[2 if plan.ragged else 1 :]) != plan.trailing:
                raise SiteError(f"{name} is {tuple(value.shape)} in this batch; the store was made for {plan.trailing}")
            seen[name] = (slots, value, counts)
            if last:
                writer.put(piece.shard, plan, [*parts.get(name, []), seen[name]], width)

        if encoded is not None and self._first is not None and self._first[0] == good:
            for name, value in self._first[1].items():  # run already, for the shapes
                keep(name, value)
            self._first = None
        elif encoded is not None:
            self._read(encoded, keep)
        elif last:
            for name, done in parts.items():
                writer.put(piece.shard, plans[name], done, width)
        for name, part in seen.items():
            parts.setdefault(name, []).append(part)
        if last:
            writer.commit(self._entry(piece.shard, rows, parts, width))

    def _entry(self, shard: int, rows: list[int], parts: dict[str, list[Part]], width: int) -> Entry:
        count = dict.fromkeys(range(len(rows)), 0)
        for slots, _, counts in parts.get("position", []):
            count.update(zip(slots, counts, strict=True))
        left_out = {str(row): self.left_out[row] for row in rows if row in self.left_out}
        return Entry(shard, rows, width, [count[slot] for slot in range(len(rows))], left_out)


def _token_index(encoded: Encoded, index: torch.Tensor) -> np.ndarray:
    """Int32 ``[batch, P]``: each chosen position counted from the row's first attended token."""
    found = np.empty(tuple(index.shape), dtype=np.int32)
    for row, layout in enumerate(encoded.layouts):
        found[row] = np.searchsorted(np.asarray(layout.attended), index[row].numpy())
    return found
