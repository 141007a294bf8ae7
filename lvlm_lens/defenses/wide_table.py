"""Tables of first-token logits that may be larger than memory: ``[sample, vocab]`` float32, one for each cell of a map.

At 152,064 tokens (Qwen2.5) 400 samples and 15 cells are 3.6 GiB.  A table above a fixed size lies in a file without
a name in the temporary folder (``TMPDIR``), which the system removes with the table; what is read of it comes and goes
with the page cache.
"""

from __future__ import annotations

import shutil
import tempfile

import numpy as np

from ..errors import UsageError

IN_MEMORY = 2**26
"""Bytes up to which a table is an ordinary array."""


def wide_table(rows: int, width: int) -> np.ndarray:
    """Float32 ``[rows, width]``, empty; a ``numpy.memmap`` where it is large."""
    size = 4 * rows * width
    if size <= IN_MEMORY:
        return np.empty((rows, width), dtype=np.float32)
    with tempfile.TemporaryFile() as file:  # the map keeps the file open
        file.truncate(size)
        return np.memmap(file, dtype=np.float32, mode="r+", shape=(rows, width))


def check_room(rows: int, width: int, tables: int) -> None:
    """Raise :class:`UsageError` where so many tables would not fit beside what lies on the disk."""
    if 4 * rows * width <= IN_MEMORY:
        return
    place = tempfile.gettempdir()
    need, free = 4 * rows * width * tables, shutil.disk_usage(place).free
    if need > 0.9 * free:
        raise UsageError(
            f"{tables} tables of {rows} samples x {width} features need {need / 2**30:.1f} GiB in {place} (TMPDIR), "
            f"which has {free / 2**30:.1f} GiB free; give fewer candidate blocks or samples, features='last_resid', or "
            "another TMPDIR"
        )
