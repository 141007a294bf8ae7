"""Numbers with intervals: ranking scores, the cluster bootstrap, permutations, false-discovery control.

All resampling is over *groups* (behaviour, image, pair), because samples of one group are not
independent.  A bootstrap replicate is a vector of integer weights, one a sample: how often its
group was drawn.  Every statistic here takes such weights, so a thousand replicates of an AUROC
are one sort and a few cumulative sums, not a thousand sorts.

Sources: AUROC as the Mann-Whitney statistic with ties counted one half; average precision as in
scikit-learn; percentile cluster bootstrap (Efron & Tibshirani 1993; Field & Welsh 2007);
permutation p-values ``(1 + #{null >= observed}) / (1 + draws)`` (Phipson & Smyth 2010);
Benjamini & Hochberg 1995.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..errors import DataError, NumericalError


def binary_labels(labels: Any) -> np.ndarray:
    """Labels as bool ``[sample]``; both classes must be there (0/1, False/True, or two sortable values)."""
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise DataError(f"labels have shape {labels.shape}; expected one label a sample")
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) != 2:
        raise DataError(
            f"labels hold {len(classes)} class(es) ({', '.join(map(str, classes[:4]))}); two are needed, "
            "harmful and harmless"
        )
    return codes.reshape(-1) == 1


def _columns(scores: Any, n: int) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape[0] != n or scores.ndim not in (1, 2):
        raise DataError(f"scores have shape {scores.shape} for {n} labels; expected [sample] or [sample, block]")
    if not np.isfinite(scores).all():
        raise NumericalError("scores hold NaN or infinity")
    return scores[:, None] if scores.ndim == 1 else scores


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


def _ones(weights: np.ndarray | None, n: int) -> np.ndarray:
    return np.ones((1, n)) if weights is None else np.atleast_2d(np.asarray(weights, dtype=np.float64))


def weighted_auroc(
    scores: Any, labels: Any, weights: np.ndarray | None = None, strata: np.ndarray | None = None
) -> np.ndarray:
    """Exact AUROC under each row of weights, ties counted one half.

    Args:
        scores: ``[sample, block]`` or ``[sample]``, larger means class 1.
        labels: ``[sample]``, two classes.
        weights: ``[replicate, sample]``, non-negative; ``None`` means one row of ones.
        strata: ``[sample]``; pairs are compared only within a stratum.  Given the fold, it compares only
            scores of one fitted probe (scores of different folds have different offsets, and pooling
            them biases the AUROC of uninformative features below one half).

    Returns:
        ``[replicate, block]`` float64; NaN where a replicate holds one class only.
    """
    positive = binary_labels(labels)
    n = len(positive)
    scores = _columns(scores, n)
    weights = _ones(weights, n).T  # [n, R]
    strata = np.zeros(n, dtype=np.int64) if strata is None else np.unique(strata, return_inverse=True)[1].reshape(-1)
    pairs = np.zeros(weights.shape[1])
    wins = np.zeros((weights.shape[1], scores.shape[1]))
    for stratum in range(strata.max() + 1):
        up, down = (np.flatnonzero((strata == stratum) & side) for side in (positive, ~positive))
        w_up, w_down = np.ascontiguousarray(weights[up]), weights[down]
        pairs += w_up.sum(0) * w_down.sum(0)
        below = np.zeros((len(down) + 1, weights.shape[1]))
        for block in range(scores.shape[1]):
            order = np.argsort(scores[down, block])
            np.cumsum(w_down[order], axis=0, out=below[1:])  # weight of the i lowest negatives
            lowest_first = scores[down, block][order]
            less = np.searchsorted(lowest_first, scores[up, block], "left")
            less_or_equal = np.searchsorted(lowest_first, scores[up, block], "right")
            beaten = below[less]
            if (less != less_or_equal).any():
                beaten = 0.5 * (beaten + below[less_or_equal])
            wins[:, block] += np.einsum("ir,ir->r", w_up, beaten)
    return np.divide(wins, pairs[:, None], out=np.full_like(wins, np.nan), where=pairs[:, None] > 0)


def auroc(scores: Any, labels: Any, strata: np.ndarray | None = None) -> Any:
    """Area under the ROC curve (exact, ties one half): float for ``[sample]``, ``[block]`` for ``[sample, block]``."""
    value = weighted_auroc(scores, labels, None, strata)[0]
    return float(value[0]) if np.ndim(scores) == 1 else value


def _ranked(scores: np.ndarray, w_pos: np.ndarray, w_neg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cumulated positive and negative weight at each distinct threshold, from the highest score down."""
    order = np.argsort(-scores, kind="stable")
    last = np.r_[scores[order][1:] != scores[order][:-1], True]
    return np.cumsum(w_pos[order], 0)[last], np.cumsum(w_neg[order], 0)[last]


def weighted_auprc(scores: Any, labels: Any, weights: np.ndarray | None = None) -> np.ndarray:
    """Average precision under each row of weights, ``[replicate, block]`` (scikit-learn's, not interpolated).

    Arguments as in :func:`weighted_auroc`.
    """
    positive = binary_labels(labels)
    scores = _columns(scores, len(positive))
    weights = _ones(weights, len(positive)).T
    w_pos, w_neg = weights * positive[:, None], weights * ~positive[:, None]
    out = np.empty((weights.shape[1], scores.shape[1]))
    for block in range(scores.shape[1]):
        tp, fp = _ranked(scores[:, block], w_pos, w_neg)
        precision = np.divide(tp, tp + fp, out=np.ones_like(tp), where=tp + fp > 0)
        gained = np.diff(tp, axis=0, prepend=0)
        with np.errstate(invalid="ignore"):
            out[:, block] = (precision * gained).sum(0) / tp[-1]
    return out


def auprc(scores: Any, labels: Any) -> Any:
    """Average precision: float for ``[sample]``, ``[block]`` for ``[sample, block]``."""
    value = weighted_auprc(scores, labels)[0]
    return float(value[0]) if np.ndim(scores) == 1 else value


def weighted_tpr_at_fpr(scores: Any, labels: Any, fpr: float = 0.01, weights: np.ndarray | None = None) -> np.ndarray:
    """Largest true-positive rate whose false-positive rate is at most ``fpr``, ``[replicate, block]``.

    With fewer than ``1 / fpr`` harmless samples this is the rate at no false positive at all.
    """
    positive = binary_labels(labels)
    scores = _columns(scores, len(positive))
    weights = _ones(weights, len(positive)).T
    w_pos, w_neg = weights * positive[:, None], weights * ~positive[:, None]
    out = np.empty((weights.shape[1], scores.shape[1]))
    for block in range(scores.shape[1]):
        tp, fp = _ranked(scores[:, block], w_pos, w_neg)
        allowed = fp <= fpr * fp[-1] + 1e-9
        with np.errstate(invalid="ignore"):
            out[:, block] = np.where(allowed, tp, 0).max(0) / tp[-1]
    return out


def tpr_at_fpr(scores: Any, labels: Any, fpr: float = 0.01) -> Any:
    """True-positive rate at a false-positive rate of at most ``fpr``: float or ``[block]``."""
    value = weighted_tpr_at_fpr(scores, labels, fpr)[0]
    return float(value[0]) if np.ndim(scores) == 1 else value


def expected_calibration_error(
    probability: Any, labels: Any, bins: int = 10, weights: np.ndarray | None = None
) -> np.ndarray:
    """Mean over equal-width bins of |share of class 1 - mean probability|, weighted by bin size (Guo et al. 2017).

    Args:
        probability: of class 1, ``[sample]`` or ``[sample, block]``.
        labels: ``[sample]``.
        bins: equal-width bins of [0, 1].
        weights: ``[replicate, sample]``; ``None`` means one row of ones.

    Returns:
        ``[replicate, block]``.
    """
    positive = binary_labels(labels)
    columns = _columns(probability, len(positive))
    weights = _ones(weights, len(positive))
    out = np.empty((len(weights), columns.shape[1]))
    for block, p in enumerate(columns.T):
        inside = np.minimum((p * bins).astype(int), bins - 1)[:, None] == np.arange(bins)  # [n, bin]
        out[:, block] = np.abs(weights @ (inside * (positive - p)[:, None])).sum(1) / weights.sum(1)
    return out


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


def permutation_p_value(observed: Any, null: Any) -> Any:
    """One-sided ``(1 + #{null >= observed}) / (1 + draws)``; ``null`` is ``[draw, ...]``."""
    null = np.asarray(null, dtype=np.float64)
    return (1 + (null >= np.asarray(observed)[None]).sum(0)) / (1 + len(null))


def permute_labels(labels: Any, groups: Any = None, draws: int = 50, random_state: int = 0) -> np.ndarray:
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
        random_state: seed.

    Returns:
        ``[draw, sample]``, of the labels' dtype.
    """
    labels = np.asarray(labels)
    n = len(labels)
    rng = np.random.default_rng(random_state)
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


def group_folds(
    labels: Any, groups: Any = None, folds: int = 5, random_state: int = 0, rare: bool = False
) -> np.ndarray:
    """Fold of each sample: whole groups, class shares as equal as they can be (StratifiedGroupKFold).

    Args:
        labels: ``[sample]``, any number of classes.
        groups: ``[sample]`` or ``None`` (every sample its own group).
        folds: number of folds.
        random_state: seed of the shuffle.
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
        raise DataError(f"no class has {folds} samples; use fewer folds or more samples a class")
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
        splitter = StratifiedKFold(folds, shuffle=True, random_state=random_state)
        parts = splitter.split(np.zeros(len(labels)), labels)
    else:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=random_state)
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
