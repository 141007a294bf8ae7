"""Debiased linear CKA between a block and the labels: how much of the geometry of its activations the labels explain.

A bootstrap repeats points, and a repeated point is its own neighbour; so intervals here come from half samples of
groups without replacement, whose spread around the full estimate equals the sampling error at full size
(delete-half jackknife, Shao & Wu 1989), recentred on the estimate.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from ..stats.cka import centred_gram, cka, unbiased_hsic
from ..stats.curve import Curve
from ..stats.resampling import half_samples, permute_labels, recentred
from .blocks import iterate
from .measure import Measure
from .spec import ALL_BASELINES, Measured, MeasureSpec
from .study import Study


def _label_ckas(gram: np.ndarray, labels: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """CKA with each row of ``labels [draw, n]``, shuffles of the labels of ``kernel``: one product for all of them.

    A label kernel is ``Y Y'`` with one column per class, so ``sum(K * L)`` is ``sum_c y_c' K y_c``; class sizes, and
    with them HSIC of the labels with themselves, are the same for every shuffle.
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


@dataclass(eq=False, repr=False)
class LabelCKA(Measure):
    """Debiased linear CKA between a block's activations and the labels.

    Attributes:
        curve_: CKA with half-sample interval and shuffled-label null.
    """

    name = "label_cka"
    unit = "debiased CKA"
    source = "linear CKA (Kornblith et al. 2019) with unbiased HSIC (Song et al. 2012)"

    _: KW_ONLY
    replicates: int = 200

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
            gram = centred_gram(rows)
            value.append(cka(gram, kernel))
            part = [cka(gram[np.ix_(m, m)], kernel[np.ix_(m, m)]) for m in masks]
            draws.append(recentred(np.array(part), value[-1]))
            null.append(_label_ckas(gram, shuffled, kernel))
        self.curve_ = self._keep(activations, value, draws, null, n, name="CKA with labels")
        return self

    def score(self, activations: Any, labels: Any) -> np.ndarray:
        """CKA with the labels of other samples, ``[block]``."""
        codes = np.unique(labels, return_inverse=True)[1].reshape(-1)
        kernel = np.equal.outer(codes, codes).astype(np.float64)
        return np.array([cka(centred_gram(rows), kernel) for _, rows in iterate(activations, len(codes))])


def _compute(study: Study) -> Measured:
    def fit(activations: Any, **settings: int) -> Curve:
        draws = study.draws | {"replicates": min(study.replicates, 60)} | settings
        return LabelCKA(**draws).fit(activations, study.labels, study.groups).curve_

    return Measured(study.beside(fit(study.evidence), lambda x: fit(x, permutations=2, replicates=20)))


SPEC = MeasureSpec(
    "label_cka", "perception", "cheap", LabelCKA.source, "how much of the cloud's geometry is the labels'", _compute,
    expected=ALL_BASELINES, probes=1.0, planted="danger",
)  # fmt: skip
