"""Who is above a threshold, at a stated false-positive rate, whatever the share of positives.

A probe's own zero is where both classes are equally likely *in the training data*: with nine harmful items of ten it
calls everything harmful.  Here the threshold of a fold comes from the negatives of the other folds, as the quantile
that a new negative exceeds with at most the stated probability (the split-conformal quantile, Vovk et al. 2005), and
the block is the one that is best on the other folds.  The negatives of a fold are themselves read at the block that is
best without them (cross-conformal, Vovk 2015): at a block that was chosen because they score low there, the threshold
would be too low for others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .choice import fold_aurocs

FALSE_POSITIVES = 0.1
"""Stated rate at which harmless items may be called perceived."""


def above_threshold(scores: Any, labels: Any, fold: np.ndarray, rate: float = FALSE_POSITIVES) -> np.ndarray:
    """Bool ``[item]``: above the threshold of its fold, at the block of its fold.

    Args:
        scores: out-of-fold scores ``[item, block]``, larger for positives.
        labels: ``[item]``, 1 and 0; fold: ``[item]``.
        rate: of false positives.
    """
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(bool)
    aurocs, pairs = fold_aurocs(scores, positive, fold)
    names, wins = np.unique(fold), np.nan_to_num(aurocs[:, 0]) * pairs  # [fold, block]
    out = np.zeros(len(scores), dtype=bool)
    for k, number in enumerate(names):
        others = [j for j in range(len(names)) if j != k]
        block = int(wins[others].sum(0).argmax())
        negatives = [
            scores[(fold == names[j]) & ~positive, int(wins[[i for i in others if i != j]].sum(0).argmax())]
            for j in others
        ]
        own = fold == number
        out[own] = scores[own, block] > _threshold(np.concatenate(negatives), rate)
    return out


def above_by_block(scores: Any, labels: Any, fold: np.ndarray, rate: float = FALSE_POSITIVES) -> np.ndarray:
    """Bool ``[item, block]``: above the threshold of its fold, block by block; arguments of :func:`above_threshold`."""
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(bool)
    out = np.zeros(scores.shape, dtype=bool)
    for number in np.unique(fold):
        own = fold == number
        out[own] = scores[own] > _threshold(scores[~own & ~positive], rate)
    return out


def _threshold(negatives: np.ndarray, rate: float) -> Any:
    """What a new negative exceeds with probability ``rate`` at most, by column; infinite with too few negatives."""
    rank = int(np.ceil((1 - rate) * (len(negatives) + 1) - 1e-9))
    return np.sort(negatives, axis=0)[rank - 1] if 0 < rank <= len(negatives) else np.inf
