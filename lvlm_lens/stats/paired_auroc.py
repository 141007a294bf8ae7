"""Two scores of the same items: the difference of their AUROCs as a sum over items, so that signs can be flipped.

Under the hypothesis that the two scores are exchangeable, the two (as ranks, so that their scales do not matter) may be
swapped for any item (Venkatraman 2000; Bandos, Rockette and Gur 2005).  The difference is odd in all swaps together, so
each pair of a positive and a negative item contributes a part that flips with the one and a part that flips with the
other: the difference after any swaps is ``signs @ parts``, exactly.  So swaps of whole groups are sign flips
(:mod:`.groups`), and a map of many scores against one is a grid of cells (:mod:`.maxt`).  [own in the decomposition]
"""

from __future__ import annotations

from typing import Any

import numpy as np


def paired_auroc_parts(first: Any, second: Any, labels: Any) -> np.ndarray:
    """Parts ``[cell, item]`` whose sum is the AUROC of ``first`` minus that of ``second``.

    Args:
        first: scores ``[cell, item]`` or ``[item]``.
        second: scores ``[item]``.
        labels: ``[item]``, 1 for positive items and 0 for negative ones; both must be there.
    """
    from scipy.stats import rankdata

    positive = np.asarray(labels).astype(bool)
    if positive.all() or not positive.any():
        raise ValueError("an AUROC needs positive and negative items")
    rows = rankdata(np.atleast_2d(np.asarray(first, np.float64)), axis=1)
    other = rankdata(np.asarray(second, np.float64))
    parts = np.empty(rows.shape)
    pairs = positive.sum() * (~positive).sum()
    theirs = _wins(other, other, positive)
    for cell, own in enumerate(rows):
        together = _wins(own, own, positive) - theirs  # both as they are, [positive, negative]
        apart = _wins(own, other, positive) - _wins(other, own, positive)  # the negative item swapped
        parts[cell, positive] = (together + apart).sum(1) / (2 * pairs)
        parts[cell, ~positive] = (together - apart).sum(0) / (2 * pairs)
    return parts


def _wins(up: np.ndarray, down: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """1 where a positive item's ``up`` is above a negative item's ``down``, one half for ties."""
    ahead = np.sign(up[positive][:, None] - down[~positive][None])
    return 0.5 * (1 + ahead)
