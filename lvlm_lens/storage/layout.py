"""How a store lays its arrays out: which array, what shape, which chunk is which file.

Every site of every block is a zarr (v3) array of its own under ``arrays/``, so one block is read
without touching another.  Rows stand in the order in which they were computed, ``shard_rows`` to a
shard; along the position axis a chunk holds ``chunk_width`` positions, and the axis grows by whole
chunks where a prompt is longer than the first estimate.  Chunks are plain little-endian numbers with
no compression (activations do not compress), so a chunk can be mapped into memory as it lies.
bfloat16, which zarr does not know, is kept bit for bit as uint16 with its name in the attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import ml_dtypes
import numpy as np
import torch

from ..errors import RunFolderError
from .folder import Folder

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "float64": np.dtype("<f8"),
    "bfloat16": np.dtype("<u2"),  # the bits
    "int32": np.dtype("<i4"),
}
_NAN_BITS = {"bfloat16": 0x7FC0}
_CHUNK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class ArrayPlan:
    """One array: ``[slot, position, *trailing]``, or ``[slot, *trailing]`` where it is not ``ragged``."""

    name: str
    dtype: str
    trailing: tuple[int, ...]
    ragged: bool = True

    @property
    def fill(self) -> Any:
        """What stands where no number was captured: NaN, or -1 for integers."""
        return -1 if self.dtype == "int32" else _NAN_BITS.get(self.dtype, float("nan"))

    @property
    def disk(self) -> np.dtype[Any]:
        """The dtype on disk."""
        return DTYPES[self.dtype]

    def to_stored(self, bits: np.ndarray) -> np.ndarray:
        """The array under its own dtype (bfloat16 by ``ml_dtypes``), without a copy."""
        return bits.view(ml_dtypes.bfloat16) if self.dtype == "bfloat16" else bits


@dataclass(frozen=True)
class Layout:
    """Shape of a whole store.  ``shards`` shards of ``shard_rows`` rows, ``chunk_width`` positions a chunk."""

    shards: int
    shard_rows: int
    width: int
    chunk_width: int
    arrays: tuple[ArrayPlan, ...]

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Layout:
        """From the manifest; refuses dtypes and names that no store of ours holds."""
        arrays = []
        for item in record["arrays"]:
            if item["dtype"] not in DTYPES or "/" in item["name"] or item["name"].startswith("."):
                raise RunFolderError(f"array {item['name']!r} of dtype {item['dtype']!r} is none that a store can hold")
            arrays.append(ArrayPlan(item["name"], item["dtype"], tuple(item["trailing"]), bool(item["ragged"])))
        shards, rows, width, step = (int(record[name]) for name in ("shards", "shard_rows", "width", "chunk_width"))
        return cls(shards, rows, width, step, tuple(arrays))

    def chunk_shape(self, plan: ArrayPlan) -> tuple[int, ...]:
        """Shape of one chunk."""
        return (self.shard_rows, *((self.chunk_width,) if plan.ragged else ()), *plan.trailing)

    def shape(self, plan: ArrayPlan, width: int) -> tuple[int, ...]:
        """Shape of the array when it is ``width`` positions wide."""
        return (self.shards * self.shard_rows, *((width,) if plan.ragged else ()), *plan.trailing)

    def columns(self, width: int) -> int:
        """Chunks along the position axis for ``width`` positions."""
        return -(-width // self.chunk_width)

    def key(self, plan: ArrayPlan, shard: int, column: int) -> str:
        """The file of a chunk, as zarr v3 names it: ``array/c.i.j.0``."""
        where = (shard, *((column,) if plan.ragged else ()), *(0 for _ in plan.trailing))
        return f"{plan.name}/c.{'.'.join(map(str, where))}"


def chunk_width(width: int, shard_rows: int, row_bytes: int) -> int:
    """Positions a chunk: the whole first width, less where a chunk would grow over 16 MiB."""
    whole = width if width <= 8 else -(-width // 8) * 8
    return min(whole, max(8, _CHUNK_BYTES // max(1, shard_rows * row_bytes)))


def torch_name(dtype: torch.dtype) -> str:
    """Name of a torch dtype that a store can hold."""
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES or name == "int32":
        raise RunFolderError(f"a store holds float32, float16, bfloat16 or float64, not {name}")
    return name


def as_bits(tensor: torch.Tensor) -> np.ndarray:
    """A CPU tensor as the array that goes to disk, without a copy."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


class Arrays:
    """The zarr arrays of a store: created once, grown, written by whole chunks."""

    def __init__(self, folder: Folder, layout: Layout) -> None:
        self.folder, self.layout = folder, layout
        self._open: dict[str, Any] = {}

    def _group(self, mode: Any) -> Any:
        import zarr
        from zarr.storage import FsspecStore, LocalStore

        place: Any
        if self.folder.local is not None:
            place = LocalStore(self.folder.local / "arrays")
        else:
            place = FsspecStore.from_url(f"{self.folder.address}/arrays")
        return zarr.open_group(place, mode=mode, zarr_format=3)

    def create(self) -> None:
        """Make every array at its full number of rows."""
        group = self._group("a")
        for plan in self.layout.arrays:
            group.create_array(
                plan.name,
                shape=self.layout.shape(plan, self.layout.width),
                chunks=self.layout.chunk_shape(plan),
                dtype=plan.disk,
                fill_value=plan.fill,
                compressors=None,
                filters=None,
                chunk_key_encoding={"name": "default", "separator": "."},  # one folder to flush, not one a chunk
                attributes={"dtype": plan.dtype},
                overwrite=True,  # what a killed creation left
            )

    def array(self, plan: ArrayPlan) -> Any:
        """The open zarr array, refused where it is not as the manifest says."""
        if plan.name not in self._open:
            try:
                array = self._group("r+")[plan.name]
            except (KeyError, FileNotFoundError, ValueError) as error:
                raise RunFolderError(f"{self.folder.address}: array {plan.name!r} cannot be opened: {error}") from error
            codecs = [type(codec).__name__ for codec in array.metadata.codecs]
            if array.dtype != plan.disk or codecs != ["BytesCodec"] or array.chunks != self.layout.chunk_shape(plan):
                raise RunFolderError(
                    f"{self.folder.address}: array {plan.name!r} is {array.dtype} in chunks {array.chunks} through "
                    f"{codecs}; the manifest says plain {plan.disk} in chunks {self.layout.chunk_shape(plan)}"
                )
            self._open[plan.name] = array
        return self._open[plan.name]

    def write(self, plan: ArrayPlan, shard: int, column: int, chunk: np.ndarray) -> None:
        """Write one whole chunk."""
        import zarr

        start = shard * self.layout.shard_rows
        place: list[slice] = [slice(start, start + self.layout.shard_rows)]
        if plan.ragged:
            place.append(slice(column * self.layout.chunk_width, (column + 1) * self.layout.chunk_width))
        with zarr.config.set({"array.write_empty_chunks": True}):  # a chunk of fill values is a chunk all the same
            self.array(plan)[tuple(place)] = chunk

    def reopen(self) -> None:
        """Forget what is open: another writer may have grown the arrays."""
        self._open.clear()

    def fits(self, width: int) -> bool:
        """True when ``width`` positions have room in every array."""
        return all(self.array(plan).shape[1] >= width for plan in self.layout.arrays if plan.ragged)

    def grow(self, width: int) -> None:
        """Widen the position axis to hold ``width``, by whole chunks; never narrows."""
        wide = self.layout.columns(width) * self.layout.chunk_width
        for plan in self.layout.arrays:
            if plan.ragged and self.array(plan).shape[1] < width:
                self.array(plan).resize(self.layout.shape(plan, wide))
