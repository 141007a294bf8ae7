"""A store: activations on disk (or at any fsspec address), read one block at a time.

The folder holds

    manifest.json    what the store belongs to (model, processor, data, sites), its layout, its origin
    samples.jsonl    the samples, pictures by key
    arrays/          one zarr v3 array for each site of each block, and ``position`` (see ``layout.py``)
    ledger/          one small file for each finished shard of rows, with the checksum of each chunk

A row is there when its shard stands in the ledger (see ``ledger.py``); everything else in ``arrays``
is unfinished work that nobody reads.  Reading maps chunks into memory as they lie and checks each
one's length and checksum on the way, so that a damaged chunk is an error and never a number.  Only JSON
and plain numbers are ever decoded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Sample
from ..errors import RunFolderError, SiteError
from ..models.positions import Positions
from ..storage.commit import PARTIAL, writing
from ..storage.folder import Folder
from ..storage.identity import require
from ..storage.layout import ArrayPlan, Arrays, Layout
from ..storage.ledger import Claims, Entry, Ledger, checksum
from .activations import Activations, BlockView
from .identity import sample_from
from .sites import Site

FORMAT = "lvlm-lens activations"
VERSION = 1
_OWN = {"manifest.json", "samples.jsonl", "arrays", "ledger", "claims"}


@dataclass(frozen=True)
class Damage:
    """A chunk that is not what was written: which file, what is wrong, which samples it holds."""

    chunk: str
    reason: str
    shard: int

    def __str__(self) -> str:
        return f"arrays/{self.chunk}: {self.reason}"


class ActivationStore:
    """Activations in a folder, with the reading interface of :class:`Activations`.

    Open one with :meth:`open`; :func:`~lvlm_lens.activations.capture_to` makes and fills one.

    ``store["resid_post", 5]`` is ``[sample, position, d_model]`` of the finished samples in the order
    of the data set (bfloat16 comes widened to float32, :meth:`stored` gives the bits as they are), NaN
    where a prompt has fewer positions; ``store.view("resid_post")`` is what probes and curves read.

    Attributes:
        samples: finished samples.
        positions: the specification that was captured.
        valid: bool ``[sample, position]``.
        provenance: model, versions, command.
    """

    def __init__(self, folder: Folder, manifest: Mapping[str, Any], rows: np.ndarray | None = None) -> None:
        self.folder = folder
        self.manifest = manifest
        self.layout = Layout.from_json(manifest["layout"])
        self.ledger = Ledger(folder)
        self.claims = Claims(folder)
        self.zarr = Arrays(folder, self.layout)
        self.positions = Positions.parse(manifest["identity"]["positions"])
        self.provenance: Mapping[str, Any] = manifest["provenance"]
        self._chosen = rows
        self._plans = {plan.name: plan for plan in self.layout.arrays}
        self._records: list[dict[str, Any]] | None = None
        self.refresh()

    # -- opening -----------------------------------------------------------------------------

    @classmethod
    def open(cls, path: str | Path) -> ActivationStore:
        """Open a store to read it, finished or not.

        Raises :class:`RunFolderError` where there is none, or it is of another format.
        """
        folder = Folder(path)
        try:
            manifest = json.loads(folder.read("manifest.json"))
        except (FileNotFoundError, NotADirectoryError):
            raise RunFolderError(f"{folder.address} holds no activation store (no manifest.json)") from None
        except ValueError as error:
            raise RunFolderError(f"{folder.address}/manifest.json is not readable: {error}") from error
        if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
            raise RunFolderError(
                f"{folder.address} is {manifest.get('format')!r} version {manifest.get('version')!r}; "
                f"this reads {FORMAT!r} version {VERSION}"
            )
        return cls(folder, manifest)

    @classmethod
    def create(
        cls,
        path: str | Path,
        identity: Mapping[str, Any],
        layout: Layout,
        records: Sequence[Mapping[str, Any]],
        provenance: Mapping[str, Any],
    ) -> ActivationStore:
        """Make an empty store; where another writer makes it at this moment, open theirs.

        Raises :class:`RunFolderError` when the folder cannot be written or holds something else.
        """
        folder = Folder(path)
        if folder.local is not None and folder.local.is_dir():
            strange = sorted(entry.name for entry in folder.local.iterdir() if not _is_own(entry.name))
            if strange:
                raise RunFolderError(f"{folder.address} holds other files ({', '.join(strange[:3])}); choose another")
        with Claims(folder).hold("create"):
            if not folder.exists("manifest.json"):
                manifest = {
                    "format": FORMAT,
                    "version": VERSION,
                    "identity": dict(identity),
                    "layout": layout.as_json(),
                    "provenance": dict(provenance),
                }
                with writing(folder.address):
                    Arrays(folder, layout).create()
                lines = "\n".join(json.dumps(record, sort_keys=True) for record in records)
                folder.commit("samples.jsonl", lines.encode())
                folder.commit("manifest.json", json.dumps(manifest, indent=1).encode())  # last: now it is a store
        return cls.open(path)

    def require(self, identity: Mapping[str, Any]) -> None:
        """Raise :class:`RunFolderError` with every differing field unless the store belongs to ``identity``."""
        hint = "give another folder, or remove this one"
        require(self.folder.address, self.manifest["identity"], identity, "capture", hint)

    # -- what is there -----------------------------------------------------------------------

    def refresh(self) -> None:
        """Read the ledger again: other writers may have finished more rows."""
        self._entries = self.ledger.finished()
        found = []
        for entry in self._entries.values():
            for slot, (row, count) in enumerate(zip(entry.rows, entry.counts, strict=True)):
                if str(row) not in entry.left_out:
                    found.append((row, entry.shard, slot, count))
        table = np.asarray(sorted(found), dtype=np.int64).reshape(-1, 4)
        self._table = table if self._chosen is None else table[self._chosen]  # data row, shard, slot, positions

    @property
    def complete(self) -> bool:
        """True when every row of the data set is finished."""
        return len(self._entries) == self.layout.shards

    @property
    def left_out(self) -> dict[str, str]:
        """Samples that could not be used, by id, and why."""
        records = self._sample_records()
        return {
            records[int(row)]["id"]: reason
            for entry in self._entries.values()
            for row, reason in entry.left_out.items()
        }

    def _sample_records(self) -> list[dict[str, Any]]:
        if self._records is None:
            self._records = [json.loads(line) for line in self.folder.read("samples.jsonl").decode().splitlines()]
        return self._records

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Finished samples in the order of the data set; their pictures are keys without pixels."""
        records = self._sample_records()
        return tuple(sample_from(records[int(row)]) for row in self._table[:, 0])

    @property
    def ids(self) -> list[str]:
        """Ids of the finished samples."""
        records = self._sample_records()
        return [records[int(row)]["id"] for row in self._table[:, 0]]

    @property
    def width(self) -> int:
        """Positions of the longest finished row."""
        return int(self._table[:, 3].max(initial=0))

    @property
    def valid(self) -> np.ndarray:
        """Bool ``[sample, position]``."""
        return np.arange(self.width)[None, :] < self._table[:, 3:]

    @property
    def token_index(self) -> np.ndarray:
        """Int32 ``[sample, position]``: which token of its own prompt (padding not counted); -1 where not valid."""
        return self._read("position")

    @property
    def sites(self) -> list[Site]:
        """Captured sites, in order."""
        return [Site.parse(name) for name in self._plans if name not in ("position", "logits")]

    def blocks(self, name: str = "resid_post") -> list[int]:
        """Captured blocks of a block site."""
        found = sorted(site.block for site in self.sites if site.name == name and site.block is not None)
        if not found:
            raise SiteError(f"site {name!r} was not captured; captured: {sorted({s.name for s in self.sites})}")
        return found

    def __len__(self) -> int:
        return len(self._table)

    @property
    def nbytes(self) -> int:
        """Bytes of all finished numbers, padding not counted."""
        size = 0
        for plan in self._plans.values():
            vector = plan.disk.itemsize * int(np.prod(plan.trailing, dtype=np.int64))
            size += vector * (int(self._table[:, 3].sum()) if plan.ragged else len(self._table))
        return size

    def __repr__(self) -> str:
        state = "complete" if self.complete else f"{len(self._entries)} of {self.layout.shards} shards"
        return f"ActivationStore({self.folder.address!r}, {len(self)} samples, {len(self.sites)} sites, {state})"

    # -- reading -----------------------------------------------------------------------------

    def __getitem__(self, key: Site | str | tuple[str, int]) -> np.ndarray:
        array = self.stored(self._site(key))
        return array.astype(np.float32) if array.dtype.name == "bfloat16" else array

    def _site(self, key: Site | str | tuple[str, int]) -> Site:
        if isinstance(key, tuple):
            block = key[1] if key[1] >= 0 else max(self.blocks(key[0])) + 1 + key[1]
            return Site(key[0], block)
        if isinstance(key, str):
            if any(site.name == key and site.block is not None for site in self.sites):
                raise SiteError(
                    f"a store is read one block at a time: store[{key!r}, {self.blocks(key)[0]}], or "
                    "store.load() for everything in memory"
                )
            return Site.parse(key)
        return key

    def stored(self, site: Site | str | tuple[str, int]) -> np.ndarray:
        """A site's array with the very bits that were captured (bfloat16 as ``ml_dtypes.bfloat16``)."""
        site = self._site(site)
        if str(site) not in self._plans:
            raise SiteError(f"site {site} was not captured; captured: {', '.join(map(str, self.sites[:4]))} ...")
        return self._read(str(site))

    @property
    def logits(self) -> np.ndarray | None:
        """Float32 ``[sample, vocab]`` at the last prompt token, where they were asked for."""
        return self._read("logits") if "logits" in self._plans else None

    def _read(self, name: str) -> np.ndarray:
        plan, width = self._plans[name], self.width
        out = np.empty((len(self), *((width,) if plan.ragged else ()), *plan.trailing), dtype=plan.disk)
        spare = np.empty(self.layout.chunk_shape(plan), dtype=plan.disk)  # one for all chunks: its memory stays warm
        for shard in np.unique(self._table[:, 1]):
            entry = self._entries[int(shard)]
            rows = np.flatnonzero(self._table[:, 1] == shard)
            slots = self._table[rows, 2]
            whole = np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows)))
            place: Any = slice(rows[0], rows[0] + len(rows)) if whole else rows  # a slice copies once, without an index
            take: Any = slice(len(slots)) if np.array_equal(slots, np.arange(len(slots))) else slots
            in_order = isinstance(place, slice) and isinstance(take, slice)
            if not plan.ragged:
                self._chunk(plan, entry, 0, out, place, take, spare, in_order)
                continue
            step, columns = self.layout.chunk_width, self.layout.columns(entry.width)
            for column in range(columns):
                start, stop = column * step, min((column + 1) * step, width)
                if start < stop:
                    at = (slice(None), slice(start, stop))
                    self._chunk(plan, entry, column, out[at], place, (take, slice(stop - start)), spare, in_order)
            out[place, columns * step :] = plan.fill
        return plan.to_stored(out)

    def _chunk(
        self, plan: ArrayPlan, entry: Entry, column: int, out: np.ndarray, place: Any, take: Any, spare: np.ndarray,
        in_order: bool,
    ) -> None:  # fmt: skip
        """``out[place] = chunk[take]``, checked; raises :class:`RunFolderError` naming a damaged chunk.

        A chunk that lies in ``out`` as it lies on disk is read into its place, without a copy between.
        """
        into = out[place] if in_order else out[:0]
        direct = into.shape == spare.shape and into.flags.c_contiguous
        key = self.layout.key(plan, entry.shard, column)
        damage = self._inspect(plan, entry, key, into if direct else spare)
        if damage is not None:
            raise RunFolderError(
                f"{self.folder.address}: {damage}; store.verify(repair=True) and the same capture again will mend it"
            )
        if not direct:
            out[place] = spare[take]

    def _inspect(self, plan: ArrayPlan, entry: Entry, key: str, into: np.ndarray) -> Damage | None:
        """Read a chunk's bytes into a contiguous array of a chunk's size; what is wrong with them, or ``None``."""
        target = into.reshape(-1).view(np.uint8)
        try:
            size = self._bytes(key, target)
        except FileNotFoundError:
            return Damage(key, "missing", entry.shard)
        if size != len(target):
            word = "truncated" if size < len(target) else "too long"
            return Damage(key, f"{word}: {size} of {len(target)} bytes", entry.shard)
        seen = checksum(target)
        if seen != entry.checksums[key]:
            return Damage(key, f"checksum {seen}, written as {entry.checksums[key]}", entry.shard)
        return None

    def _bytes(self, key: str, target: np.ndarray) -> int:
        """Read a file into ``target`` where it is as long; returns its length."""
        if self.folder.local is None:
            data = np.frombuffer(self.folder.read(f"arrays/{key}"), np.uint8)
            if len(data) == len(target):
                target[:] = data
            return len(data)
        with (self.folder.local / "arrays" / key).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            done = 0
            while size == len(target) and done < size:
                got = file.readinto(target.data[done:])  # mapped pages would be faulted in one by one
                if not got:
                    return done  # cut off while it was read
                done += got
            return size

    def verify(self, repair: bool = False) -> list[Damage]:
        """Read every chunk of every finished row and name the damaged ones (none: all is well).

        ``repair`` takes the damaged shards out of the ledger, so that the same capture computes them anew.
        """
        found: list[Damage] = []
        spare = {name: np.empty(self.layout.chunk_shape(plan), plan.disk) for name, plan in self._plans.items()}
        for entry in self._entries.values():
            for key in entry.checksums:
                plan = self._plans.get(key.split("/", 1)[0])
                if plan is None:
                    raise RunFolderError(f"{self.folder.address}: the ledger names {key!r}, which is no array here")
                damage = self._inspect(plan, entry, key, spare[plan.name])
                if damage is not None:
                    found.append(damage)
        if repair:
            for shard in sorted({damage.shard for damage in found}):
                self.ledger.drop(shard)
            self.refresh()
        return found

    def tidy(self) -> None:
        """Remove what killed writers left behind, once every row is finished."""
        self.claims.clear()
        if self.folder.local is not None:
            for leftover in self.folder.local.rglob(f"*{PARTIAL}"):
                leftover.unlink(missing_ok=True)

    # -- the rest of the interface of Activations ----------------------------------------------

    @property
    def arrays(self) -> Mapping[Site, np.ndarray]:
        """Site to array; each is read when it is looked up and not kept."""
        return _Lazy(self)

    def view(self, name: str = "resid_post", position: int | None = None) -> BlockView:
        """One site, one vector a sample, read block by block (see :class:`BlockView`)."""
        return BlockView(self, name, position)

    def select(self, rows: Sequence[int] | np.ndarray) -> ActivationStore:
        """The same store restricted to some of its samples; nothing is read."""
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        base = np.arange(len(self)) if self._chosen is None else self._chosen
        return ActivationStore(self.folder, self.manifest, base[index])

    def load(self) -> Activations:
        """Everything in memory."""
        arrays = {site: self[site] for site in self.sites}
        return Activations(self.samples, self.positions, arrays, self.valid, self.logits, self.provenance)


class _Lazy(Mapping[Site, np.ndarray]):
    def __init__(self, store: ActivationStore) -> None:
        self._store = store

    def __getitem__(self, site: Site) -> np.ndarray:
        return self._store[site]

    def __iter__(self) -> Iterator[Site]:
        return iter(self._store.sites)

    def __len__(self) -> int:
        return len(self._store.sites)


def _is_own(name: str) -> bool:
    return name in _OWN or name.startswith(".") or name.endswith(PARTIAL)
