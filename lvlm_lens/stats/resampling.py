"""Draws of groups: the cluster bootstrap, half samples, permutations of labels, folds.

All resampling is over *groups* (behaviour, image, pair), because samples of one group are not
independent.  A bootstrap replicate is a vector of integer weights, one per sample: how often its
group was drawn (:mod:`.auroc` takes such weights).

Sources: percentile cluster bootstrap (Efron & Tibshirani 1993; Field & Welsh 2007); permutation
p-values ``(1 + #{null >= observed}) / (1 + draws)`` (Phipson & Smyth 2010).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..errors import DataError
from .auroc import _ones


class Resampling:
    """Bootstrap draws of groups, the same for every curve that is measured on these groups.

    Args:
        groups: group of each sample; ``None`` makes every one of ``n`` samples its own group.
        replicates: number of draws, each of as many groups as there are.
        random_state: seed; the same groups and seed give the same draws whatever the order of samples.
        n: number of samples where ``groups`` is ``None``.
    """

    def __init__(self, groups: Any = None, replicates: int = 1000, random_state: int = 0, n: int | None = None) -> None:
        groups = np.arange(n or 0) if groups is None else np.asarray(groups)
        self.names, self.index = np.unique(groups, return_inverse=True)
        self.index = self.index.reshape(-1)
        if len(self.names) < 2:
            raise DataError(f"{len(self.names)} group(s); a bootstrap over groups needs at least two")
        rng = np.random.default_rng(random_state)
        drawn = rng.integers(0, len(self.names), (replicates, len(self.names)))
        self.counts = np.zeros((replicates, len(self.names)), dtype=np.float32)  # [R, G]
        rows = np.repeat(np.arange(replicates), len(self.names))
        np.add.at(self.counts, (rows, drawn.reshape(-1)), 1.0)

    def __len__(self) -> int:
        return len(self.counts)

    def weights(self, groups: Any = None) -> np.ndarray:
        """Weights ``[replicate, sample]`` for the samples given at the start, or for ``groups`` of other samples."""
        if groups is None:
            return self.counts[:, self.index]
        groups = np.asarray(groups)
        at = np.searchsorted(self.names, groups)
        at = np.minimum(at, len(self.names) - 1)
        unknown = self.names[at] != groups
        if unknown.any():
            raise DataError(f"group {groups[unknown][0]!r} was not among the resampled groups")
        return self.counts[:, at]


def weighted_mean(values: Any, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean over samples under each row of weights, ``[replicate, block]``; NaN values are left out of their block."""
    values = np.asarray(values, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    weights = _ones(weights, len(values))
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return (weights @ np.where(known, values, 0.0)) / (weights @ known)


def interval(draws: Any, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval ``(low, high)`` over the first axis, NaN draws left out."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(np.asarray(draws, dtype=np.float64), [tail, 1 - tail], axis=0)
    return low, high


def permute_labels(labels: Any, groups: Any = None, draws: int = 50, seed: int = 0) -> np.ndarray:
    """Labels shuffled so that the dependence inside groups stays.

    The groups are put in random order, the labels inside each are shuffled, and the whole row is dealt
    out again to the groups at their places.  One rule covers the usual designs: where every group is a
    pair of one harmful and one harmless sample it swaps within pairs; where groups are pure and of one
    size it permutes whole groups; without groups it is the plain permutation.  Class counts are kept
    exactly.  Where group sizes differ a group can receive the end of one and the start of another: the
    dependence inside it is then kept only in part.  [own]

    Args:
        labels: ``[sample]``, any values.
        groups: ``[sample]`` or ``None``.
        draws: number of shuffles.
        seed: of the shuffles.

    Returns:
        ``[draw, sample]``, of the labels' dtype.
    """
    labels = np.asarray(labels)
    n = len(labels)
    rng = np.random.default_rng(seed)
    if groups is None:
        return np.stack([labels[rng.permutation(n)] for _ in range(draws)])
    index = np.unique(groups, return_inverse=True)[1].reshape(-1)
    if len(index) != n:
        raise DataError(f"{len(index)} groups for {n} labels")
    places = np.argsort(index, kind="stable")  # the samples, group by group
    out = np.empty((draws, n), dtype=labels.dtype)
    for draw in range(draws):
        group_key = rng.permutation(index.max() + 1)[index]
        source = np.lexsort((rng.random(n), group_key))  # groups in random order, samples shuffled inside
        out[draw, places] = labels[source]
    return out


def group_folds(labels: Any, groups: Any = None, folds: int = 5, seed: int = 0, rare: bool = False) -> np.ndarray:
    """Fold of each sample: whole groups, class shares as equal as they can be (StratifiedGroupKFold).

    Args:
        labels: ``[sample]``, any number of classes.
        groups: ``[sample]`` or ``None`` (every sample its own group).
        folds: number of folds.
        seed: of the shuffle.
        rare: allow a class to be absent from some training part (concepts with many classes).

    Returns:
        ``[sample]`` int64, 0 .. folds - 1.

    Raises:
        DataError: one class only; fewer groups than folds; a class found in fewer groups than two, so
            that some training part would hold one class only.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise DataError(f"all {len(labels)} labels are {classes[0] if len(classes) else '(none)'}; two classes needed")
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    if len(groups) != len(labels):
        raise DataError(f"{len(groups)} groups for {len(labels)} labels")
    n_groups = len(np.unique(groups))
    if counts.max() < folds:
        raise DataError(f"no class has {folds} samples; use fewer folds or more samples per class")
    if n_groups < folds:
        raise DataError(f"{n_groups} groups are too few for {folds} folds; use at most folds={n_groups}, or no groups")
    for value in () if rare else classes:
        if len(np.unique(groups[labels == value])) < 2:
            raise DataError(
                f"class {value} stands in one group only; it cannot be both trained on and tested: give more groups"
            )
    fold = np.full(len(labels), -1, dtype=np.int64)
    splitter: Any
    if n_groups == len(labels) and counts.min() >= folds:
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        parts = splitter.split(np.zeros(len(labels)), labels)
    else:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        parts = splitter.split(np.zeros(len(labels)), labels, groups)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class rarer than the folds: what ``rare`` allows
        for number, (_, test) in enumerate(parts):
            fold[test] = number
    if (fold < 0).any() or len(np.unique(fold)) < folds:
        raise DataError(f"{n_groups} groups could not be spread over {folds} folds; use fewer folds")
    for number in range(0 if rare else folds):
        if len(np.unique(labels[fold != number])) < len(classes):
            raise DataError(f"without fold {number} a class has no sample left; use fewer folds or more groups")
    return fold


def half_samples(groups: Any, n: int, draws: int, seed: int) -> np.ndarray:
    """Masks ``[draw, sample]`` of half the groups each."""
    index = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    count = index.max() + 1
    if count < 4:
        raise DataError(f"{count} groups; half samples need at least 4")
    rng = np.random.default_rng(seed)
    chosen = np.stack([np.isin(np.arange(count), rng.choice(count, count // 2, replace=False)) for _ in range(draws)])
    return chosen[:, index]


def recentred(draws: np.ndarray, value: float) -> np.ndarray:
    """Draws moved so that their mean is the full estimate: half samples carry the bias of half the size."""
    return draws - np.nanmean(draws) + value
