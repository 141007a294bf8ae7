"""Debiased linear CKA between every two blocks; its curve is that of each block with the last one.

A bootstrap repeats points, and a repeated point is its own neighbour; so intervals here come from half samples of
groups without replacement, whose spread around the full estimate equals the sampling error at full size
(delete-half jackknife, Shao & Wu 1989), recentred on the estimate.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from ..stats.cka import centred_gram, cka
from ..stats.resampling import half_samples, recentred
from .blocks import iterate
from .measure import Measure
from .spec import Measured, MeasureSpec
from .study import Study


@dataclass(eq=False, repr=False)
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

    _: KW_ONLY
    replicates: int = 200
    permutations: int = 20

    def fit(self, activations: Any, labels: Any = None, groups: Any = None) -> BlockCKA:
        """``labels`` are not used; ``groups`` are halved together."""
        grams = [centred_gram(rows).astype(np.float32) for _, rows in iterate(activations)]
        n = len(grams[0])
        masks = half_samples(groups, n, self.replicates, self.random_state)
        self.matrix_ = np.array([[cka(a, b) for b in grams] for a in grams])
        rng = np.random.default_rng(self.random_state + 1)
        orders = [rng.permutation(n) for _ in range(self.permutations)]
        last = grams[-1]
        draws, null = [], []
        for at, gram in enumerate(grams):
            part = [cka(gram[np.ix_(m, m)], last[np.ix_(m, m)]) for m in masks]
            draws.append(recentred(np.array(part), self.matrix_[at, -1]))
            null.append(np.array([cka(gram, last[np.ix_(order, order)]) for order in orders]))
        self.curve_ = self._keep(activations, self.matrix_[:, -1], draws, null, n, name="CKA with the last block")
        return self

    def score(self, activations: Any, labels: Any = None) -> np.ndarray:
        """CKA of each block with the last, on other samples, ``[block]``."""
        grams = [centred_gram(rows) for _, rows in iterate(activations)]
        return np.array([cka(gram, grams[-1]) for gram in grams])


def _compute(study: Study) -> Measured:
    fitted = BlockCKA(
        replicates=min(study.replicates, 60), permutations=min(study.permutations, 20), random_state=study.seed
    )
    fitted.fit(study.evidence, None, study.groups)
    return Measured(fitted.curve_, tables={"matrix": fitted.matrix_.tolist()})


SPEC = MeasureSpec(
    "block_cka", None, "cheap", BlockCKA.source, "debiased CKA of each block with the last", _compute, votes=False,
    expected=(),
    untested="it compares blocks with the last one, whatever they hold: nothing that is planted begins in it",
)  # fmt: skip
