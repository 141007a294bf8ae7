"""Geometry of a block's point cloud: intrinsic dimension and debiased linear CKA.

* :class:`IntrinsicDimension`: two-nearest-neighbour estimate (Facco et al. 2017).  Duplicates
  are removed first (the estimator divides by the first neighbour's distance); below 1000 points the estimate is
  rough and ``meta['few']`` says so.  It has no labels and so no label null; beside it stands the same estimate on
  Gaussian points with the block's covariance (baseline ``gaussian``): a curve below it shows curvature or
  clusters, not merely a falling spectrum.  [own]
* :class:`BlockCKA`: linear centred kernel alignment with the unbiased HSIC estimator (Song et al. 2012), between
  every two blocks.  The biased estimate saturates near 1 where samples are fewer than dimensions, as here always.
* :class:`LabelCKA`: the same between a block and the labels: how much of the cloud's geometry is the labels'.

A bootstrap repeats points, and a repeated point is its own neighbour; so intervals here come from half samples of
groups without replacement, whose spread around the full estimate equals the sampling error at full size
(delete-half jackknife, Shao & Wu 1989), recentred on the estimate.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError
from .blocks import iterate
from .measure import Measure
from .statistics import permute_labels


def half_samples(groups: Any, n: int, draws: int, random_state: int) -> np.ndarray:
    """Masks ``[draw, sample]`` of half the groups each."""
    index = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    count = index.max() + 1
    if count < 4:
        raise DataError(f"{count} groups; half samples need at least 4")
    rng = np.random.default_rng(random_state)
    chosen = np.stack([np.isin(np.arange(count), rng.choice(count, count // 2, replace=False)) for _ in range(draws)])
    return chosen[:, index]


def _recentred(draws: np.ndarray, value: float) -> np.ndarray:
    """Draws moved so that their mean is the full estimate: half samples carry the bias of half the size."""
    return draws - np.nanmean(draws) + value


FARTHEST = 0.1
"""Share of the largest ratios of distances that the line is fitted without, as Facco et al. do."""


def two_nn(points: np.ndarray) -> float:
    """Two-nearest-neighbour intrinsic dimension of ``[point, d]``, duplicates removed (Facco et al. 2017, section 2).

    The ratio of a point's second to its first neighbour's distance is Pareto distributed with the dimension as its
    exponent: the dimension is the slope, through the origin, of ``-log(1 - F)`` over the logarithm of the ratio.
    """
    from sklearn.neighbors import NearestNeighbors

    distinct = np.unique(points.astype(np.float64), axis=0)
    if len(distinct) < 20:
        raise DataError(f"{len(distinct)} distinct points; the two-nearest-neighbour estimate needs at least 20")
    near = NearestNeighbors(n_neighbors=2).fit(distinct).kneighbors()[0]  # [point, 2], a point is not its own
    near = near[near[:, 0] > 0]  # points apart by less than the rounding of their distance
    kept = int(len(near) * (1 - FARTHEST))
    x = np.log(np.sort(near[:, 1] / near[:, 0])[:kept])
    y = -np.log1p(-np.arange(1, kept + 1) / len(near))
    return float(x @ y / (x @ x))


def unbiased_hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """Unbiased HSIC of two kernel matrices ``[n, n]`` (Song et al. 2012, eq. 5), n >= 4."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    trace = float((k * l).sum())
    sums = k.sum() * l.sum() / ((n - 1) * (n - 2))
    cross = 2 * float(k.sum(0) @ l.sum(0)) / (n - 2)
    return (trace + sums - cross) / (n * (n - 3))


def debiased_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Debiased linear CKA of ``x [n, d]`` and ``y [n, e]``; near 0 for independent data whatever n and d."""
    return _cka(x @ x.T, y @ y.T)


def _cka(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    own = unbiased_hsic(k, k) * unbiased_hsic(l, l)
    return unbiased_hsic(k, l) / np.sqrt(own) if own > 0 else float("nan")


def _label_ckas(gram: np.ndarray, labels: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """CKA with each row of ``labels [draw, n]``, shuffles of the labels of ``kernel``: one product for all of them.

    A label kernel is ``Y Y'`` with one column a class, so ``sum(K * L)`` is ``sum_c y_c' K y_c``; class sizes, and with
    them HSIC of the labels with themselves, are the same for every shuffle.
    """
    n = len(gram)
    off = gram - np.diag(np.diag(gram))
    trace, cross, total = np.zeros(len(labels)), np.zeros(len(labels)), 0.0
    for value in np.unique(labels[0]):
        y = (labels == value).astype(np.float64)  # [draw, n]
        size = float(y[0].sum())
        trace += ((y @ off) * y).sum(1)
        cross += (size - 1) * (y @ off.sum(0))
        total += size * (size - 1)
    hsic = (trace + off.sum() * total / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)) / (n * (n - 3))
    own = unbiased_hsic(gram, gram) * unbiased_hsic(kernel, kernel)
    return hsic / np.sqrt(own) if own > 0 else np.full(len(labels), np.nan)


def _gram(rows: np.ndarray) -> np.ndarray:
    centred = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
    gram = centred @ centred.T
    return gram / max(np.trace(gram) / len(gram), 1e-300)


class IntrinsicDimension(Measure):
    """Two-nearest-neighbour intrinsic dimension by block.

    Args:
        replicates: half samples for the interval (each costs a neighbour search).
        permutations: Gaussian surrogates for the baseline.
        confidence, random_state: see :class:`~.measure.Measure`.

    Attributes:
        curve_: dimension, with baseline ``gaussian``; no null (there are no labels to shuffle).
    """

    name = "intrinsic_dimension"
    unit = "dimensions"
    source = "two nearest neighbours, Facco et al. 2017; Gaussian surrogate [own]"

    def __init__(
        self, replicates: int = 30, permutations: int = 5, confidence: float = 0.95, random_state: int = 0
    ) -> None:
        super().__init__(replicates, permutations, confidence, random_state)

    def fit(self, activations: Any, labels: Any = None, groups: Any = None) -> IntrinsicDimension:
        """``labels`` are not used; ``groups`` are halved together."""
        rng = np.random.default_rng(self.random_state)
        value, draws, surrogates, n = [], [], [], 0
        masks: np.ndarray | None = None
        for _, rows in iterate(activations):
            n = len(rows)
            masks = half_samples(groups, n, self.replicates, self.random_state) if masks is None else masks
            value.append(two_nn(rows))
            draws.append(_recentred(np.array([two_nn(rows[m]) for m in masks]), value[-1]))
            centred = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
            # A Gaussian with the sample's covariance: random combinations of the centred rows.
            made = (rng.standard_normal((n, n)) @ centred / np.sqrt(n) for _ in range(self.permutations))
            surrogates.append([two_nn(points) for points in made])
        curve = self._keep(activations, value, draws, None, n, name="intrinsic dimension", few=n < 1000)
        made_by_block = np.array(surrogates)
        self.curve_ = curve.with_baseline("gaussian", made_by_block.mean(1), made_by_block.min(1), made_by_block.max(1))
        return self

    def score(self, activations: Any, labels: Any = None) -> np.ndarray:
        """Dimension of other samples, ``[block]``."""
        return np.array([two_nn(rows) for _, rows in iterate(activations)])


class LabelCKA(Measure):
    """Debiased linear CKA between a block's activations and the labels.

    Attributes:
        curve_: CKA with half-sample interval and shuffled-label null.
    """

    name = "label_cka"
    unit = "debiased CKA"
    source = "linear CKA (Kornblith et al. 2019) with unbiased HSIC (Song et al. 2012)"

    def __init__(
        self, replicates: int = 200, permutations: int = 100, confidence: float = 0.95, random_state: int = 0
    ) -> None:
        super().__init__(replicates, permutations, confidence, random_state)

    def fit(self, activations: Any, labels: Any, groups: Any = None) -> LabelCKA:
        """``labels [sample]``: two or more values; ``groups``: shuffled and halved together."""
        codes = np.unique(labels, return_inverse=True)[1].reshape(-1)
        if codes.max() < 1:
            raise DataError("labels hold 1 class; two are needed")
        n = len(codes)
        masks = half_samples(groups, n, self.replicates, self.random_state)
        shuffled = permute_labels(codes, groups, self.permutations, self.random_state + 1)
        kernel = np.equal.outer(codes, codes).astype(np.float64)
        value, draws, null = [], [], []
        for _, rows in iterate(activations, n):
            gram = _gram(rows)
            value.append(_cka(gram, kernel))
            part = [_cka(gram[np.ix_(m, m)], kernel[np.ix_(m, m)]) for m in masks]
            draws.append(_recentred(np.array(part), value[-1]))
            null.append(_label_ckas(gram, shuffled, kernel))
        self.curve_ = self._keep(activations, value, draws, null, n, name="CKA with labels")
        return self

    def score(self, activations: Any, labels: Any) -> np.ndarray:
        """CKA with the labels of other samples, ``[block]``."""
        codes = np.unique(labels, return_inverse=True)[1].reshape(-1)
        kernel = np.equal.outer(codes, codes).astype(np.float64)
        return np.array([_cka(_gram(rows), kernel) for _, rows in iterate(activations, len(codes))])


class BlockCKA(Measure):
    """Debiased linear CKA between blocks.

    Keeps one ``n x n`` Gram matrix a block (4 bytes an entry), never the activations.

    Attributes:
        matrix_ ``[block, block]``; curve_: CKA of each block with the last one, half-sample interval, and a
        null that pairs the samples of the two blocks at random.
    """

    name = "block_cka"
    unit = "debiased CKA"
    source = "linear CKA (Kornblith et al. 2019) with unbiased HSIC (Song et al. 2012)"

    def __init__(
        self, replicates: int = 200, permutations: int = 20, confidence: float = 0.95, random_state: int = 0
    ) -> None:
        super().__init__(replicates, permutations, confidence, random_state)

    def fit(self, activations: Any, labels: Any = None, groups: Any = None) -> BlockCKA:
        """``labels`` are not used; ``groups`` are halved together."""
        grams = [_gram(rows).astype(np.float32) for _, rows in iterate(activations)]
        n = len(grams[0])
        masks = half_samples(groups, n, self.replicates, self.random_state)
        self.matrix_ = np.array([[_cka(a, b) for b in grams] for a in grams])
        rng = np.random.default_rng(self.random_state + 1)
        orders = [rng.permutation(n) for _ in range(self.permutations)]
        last = grams[-1]
        draws, null = [], []
        for at, gram in enumerate(grams):
            part = [_cka(gram[np.ix_(m, m)], last[np.ix_(m, m)]) for m in masks]
            draws.append(_recentred(np.array(part), self.matrix_[at, -1]))
            null.append(np.array([_cka(gram, last[np.ix_(order, order)]) for order in orders]))
        self.curve_ = self._keep(activations, self.matrix_[:, -1], draws, null, n, name="CKA with the last block")
        return self

    def score(self, activations: Any, labels: Any = None) -> np.ndarray:
        """CKA of each block with the last, on other samples, ``[block]``."""
        grams = [_gram(rows) for _, rows in iterate(activations)]
        return np.array([_cka(gram, grams[-1]) for gram in grams])
