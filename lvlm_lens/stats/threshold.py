"""Who is above a threshold, at a stated false-positive rate, whatever the share of positives.

A probe's own zero is where both classes are equally likely *in the training data*: with nine harmful items of ten it
calls everything harmful.  Here the threshold of a fold is the quantile of the other folds' negative scores that lets a
new negative exceed it with at most the stated probability (the split-conformal quantile, Vovk et al. 2005; Papadopoulos
et al. 2002), and the block is the one that is best on the other folds, so no item is judged by a choice it had part in.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .choice import blocks_chosen_elsewhere, fold_aurocs

FALSE_POSITIVES = 0.1
"""Stated rate at which harmless items may be called perceived."""


def conformal_threshold(negatives: Any, rate: float = FALSE_POSITIVES) -> float:
    """The value that a new negative exceeds with probability ``rate`` at most; infinite with too few negatives."""
    values = np.sort(np.asarray(negatives, dtype=np.float64))
    rank = int(np.ceil((1 - rate) * (len(values) + 1) - 1e-9))
    return float(values[rank - 1]) if rank <= len(values) else float("inf")


def above_threshold(scores: Any, labels: Any, fold: np.ndarray, rate: float = FALSE_POSITIVES) -> np.ndarray:
    """Bool ``[item]``: above the threshold of its fold, at the block of its fold.

    Args:
        scores: out-of-fold scores ``[item, block]``, larger for positives.
        labels: ``[item]``, 1 and 0; fold: ``[item]``.
        rate: of false positives.
    """
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(bool)
    blocks = blocks_chosen_elsewhere(*fold_aurocs(scores, positive, fold))[:, 0]
    out = np.zeros(len(scores), dtype=bool)
    for number, block in zip(np.unique(fold), blocks, strict=True):
        own = fold == number
        out[own] = scores[own, block] > conformal_threshold(scores[~own & ~positive, block], rate)
    return out
