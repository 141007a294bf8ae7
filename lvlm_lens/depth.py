"""Relative depth: the one definition that every figure, table and comparison of models of different size uses.

The output of block ``b`` of ``n`` stands at depth ``(b + 1) / n``: what is read after the last block is at 1, the
input embeddings (before block 0) would be at 0.  [own]
"""

from __future__ import annotations

from typing import Any

import numpy as np


def relative_depth(block: Any, n_blocks: int) -> Any:
    """Depth of the output of a block, in (0, 1]; block numbers may be arrays and need not be whole.

    >>> relative_depth(0, 4), relative_depth(3, 4)
    (0.25, 1.0)
    """
    at = (np.asarray(block, dtype=np.float64) + 1) / n_blocks
    return at if at.ndim else float(at)


def block_at_depth(depth: Any, n_blocks: int) -> Any:
    """Inverse of :func:`relative_depth`: the (real) block number at a depth."""
    at = np.asarray(depth, dtype=np.float64) * n_blocks - 1
    return at if at.ndim else float(at)
