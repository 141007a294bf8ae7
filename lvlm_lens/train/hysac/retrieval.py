"""Retrieval metrics of HySAC's tables, item by item, so that intervals can redraw objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def hits(similarity: torch.Tensor, own: Sequence[int] | np.ndarray, k: int = 1) -> np.ndarray:
    """Bool ``[query]``: whether the right item of the pool is among the ``k`` most similar.

    Args:
        similarity: ``[query, pool]``.
        own: the right item's number in the pool, for each query.
        k: of R@k.  A tie counts against the query.
    """
    right = similarity.gather(1, torch.as_tensor(np.asarray(own))[:, None].to(similarity.device))
    above = (similarity >= right).sum(1) - 1  # others at least as similar
    return (above < k).cpu().numpy()


def most_similar(similarity: torch.Tensor) -> np.ndarray:
    """Number of the most similar item of the pool, ``[query]``."""
    return similarity.argmax(1).cpu().numpy()
