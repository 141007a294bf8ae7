"""What every locator reads: one block's activations at a time.

A locator never needs two blocks in memory.  It takes anything with ``blocks`` (the block
numbers) and ``block(i)`` (that block's ``[sample, d_model]`` array): a store on disk, a view of
``Activations``, or the small wrapper around a plain array that is made here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from ..errors import NumericalError, UsageError


@runtime_checkable
class Blocks(Protocol):
    """Activations by block: ``blocks`` numbers them, ``block(i)`` gives ``[sample, d_model]`` float32."""

    @property
    def blocks(self) -> Sequence[int]:
        """Block numbers, ascending."""
        ...

    def block(self, block: int) -> np.ndarray:
        """Activations of one block, ``[sample, d_model]``."""
        ...


class ArrayBlocks:
    """A plain array ``[sample, block, d_model]`` as :class:`Blocks`."""

    def __init__(self, array: np.ndarray, blocks: Sequence[int] | None = None) -> None:
        self.array = array
        self.blocks: Sequence[int] = list(range(array.shape[1])) if blocks is None else [int(b) for b in blocks]
        if len(self.blocks) != array.shape[1]:
            raise UsageError(f"{len(self.blocks)} block numbers for an array of {array.shape[1]} blocks")

    def block(self, block: int) -> np.ndarray:
        """``[sample, d_model]`` of the block numbered ``block``."""
        return self.array[:, list(self.blocks).index(block)]

    def __len__(self) -> int:
        return len(self.array)


class SelectedBlocks:
    """Some samples (rows) of another :class:`Blocks`, in the given order; nothing is copied before reading."""

    def __init__(self, source: Any, rows: Sequence[int] | np.ndarray) -> None:
        self.source = as_blocks(source)
        self.rows = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, dtype=np.int64)

    @property
    def blocks(self) -> Sequence[int]:
        """Block numbers of the source."""
        return self.source.blocks

    def block(self, block: int) -> np.ndarray:
        """The chosen rows of one block, ``[row, d_model]``."""
        return as_matrix(self.source.block(block))[self.rows]


def as_matrix(value: Any) -> np.ndarray:
    """A numpy array of at least float32 from numpy or torch (bfloat16 included)."""
    if isinstance(value, torch.Tensor):
        value = value.detach().to("cpu")
        value = (value if value.dtype == torch.float64 else value.float()).numpy()
    value = np.asarray(value)
    return value if value.dtype == np.float64 else value.astype(np.float32, copy=False)


def as_blocks(activations: Any, blocks: Sequence[int] | None = None) -> Blocks:
    """Wrap an array ``[sample, block, d_model]`` (or ``[sample, d_model]``: one block); pass :class:`Blocks` on.

    Args:
        activations: numpy or torch array, or an object with ``blocks`` and ``block(i)``.
        blocks: block numbers for a plain array; default 0, 1, 2, ...
    """
    if isinstance(activations, Blocks):
        return activations
    array = as_matrix(activations)
    if array.ndim == 2:
        array = array[:, None]
    if array.ndim != 3:
        raise UsageError(
            f"activations have shape {array.shape}; expected [sample, block, d_model] or an object with .blocks"
        )
    return ArrayBlocks(array, blocks)


def iterate(activations: Any, n: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """``(block, [sample, d_model])`` for each block, checked: same sample count ``n``, no NaN or infinity."""
    source = as_blocks(activations)
    for block in source.blocks:
        array = as_matrix(source.block(block))
        if array.ndim != 2:
            raise UsageError(f"block {block} has shape {array.shape}; expected [sample, d_model]")
        if n is not None and len(array) != n:
            raise UsageError(f"block {block} has {len(array)} samples, but {n} labels or groups were given")
        if not np.isfinite(array).all():
            bad = np.flatnonzero(~np.isfinite(array).all(1))
            raise NumericalError(
                f"block {block} holds NaN or infinity in {len(bad)} of {len(array)} samples (first: {bad[0]}); "
                "capture again in float32 or bfloat16, or leave these samples out"
            )
        yield int(block), array
