"""What all measures share: settings, folds and draws; a subclass says only what is measured in a block.

A measure is a scikit-learn estimator.  ``fit(activations, labels, groups)`` reads one block at a time and leaves
``curve_`` (value, interval, null) and ``blocks_``; ``score(activations, labels)`` gives the measure's value on other
samples, one per block.  Measures of pairs take both members in one array: ``labels`` says which member a sample
is, ``groups`` which pair it belongs to.  :func:`~lvlm_lens.measures.check_measure.check_measure` holds every measure to
this.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator

from ..errors import DataError, UsageError
from ..stats.auroc import binary_labels
from ..stats.curve import Curve, curve_from_draws
from ..stats.resampling import Resampling
from .blocks import as_blocks


@dataclass(eq=False, repr=False)
class Measure(BaseEstimator):
    """Base of the measures: a dataclass, so that a subclass declares its own settings as fields.

    Args:
        replicates: bootstrap replicates (over groups).
        permutations: draws of the null.
        confidence: of intervals.
        random_state: seed.
    """

    name: ClassVar[str] = "measure"
    unit: ClassVar[str] = ""
    source: ClassVar[str] = ""

    blocks_: list[int] = field(init=False)
    curve_: Curve = field(init=False)
    _: KW_ONLY
    replicates: int = 1000
    permutations: int = 100
    confidence: float = 0.95
    random_state: int = 0

    def _weights(self, groups: Any, n: int) -> np.ndarray:
        """Bootstrap weights ``[replicate, sample]``."""
        return Resampling(groups, self.replicates, self.random_state, n=n).weights().astype(np.float64)

    def _keep(
        self,
        activations: Any,
        value: Any,
        replicates: Any,
        null: Any,
        n: int,
        name: str | None = None,
        unit: str | None = None,
        **meta: Any,
    ) -> Curve:
        """Lists over blocks to a :class:`Curve`: ``value [block]``, ``replicates [block][R]``, ``null [block][P]``."""
        self.blocks_ = [int(b) for b in as_blocks(activations).blocks]
        params = {k: v for k, v in self.get_params().items() if isinstance(v, (int, float, str, bool, type(None)))}
        return curve_from_draws(
            name or self.name,
            self.blocks_,
            np.asarray(value, dtype=np.float64),
            None if replicates is None else np.stack(replicates, 1),
            None if null is None else np.stack(null, 1),
            self.confidence,
            unit=self.unit if unit is None else unit,
            n=n,
            meta={"measure": self.name, "source": self.source, **params, **meta},
        )


def two_kinds(labels: Any) -> np.ndarray:
    """Labels as bool ``[sample]``, with at least two samples of each kind."""
    positive = binary_labels(labels)
    if min(positive.sum(), (~positive).sum()) < 2:
        raise DataError(f"{int(positive.sum())} and {int((~positive).sum())} samples of the two kinds; two each needed")
    return positive


def pair_rows(labels: Any, pairs: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the positive and the negative member of every pair, and the pairs' names.

    Raises:
        UsageError: no pairs given.
        DataError: a pair that is not one of each.
    """
    if pairs is None:
        raise UsageError("this measure compares the two members of a pair; give pairs= or groups= (one value per pair)")
    positive, pairs = binary_labels(labels), np.asarray(pairs)
    if len(pairs) != len(positive):
        raise UsageError(f"{len(pairs)} pair names for {len(positive)} labels")
    names, index = np.unique(pairs, return_inverse=True)
    index = index.reshape(-1)
    up, down = (np.bincount(index[side], minlength=len(names)) for side in (positive, ~positive))
    bad = (up != 1) | (down != 1)
    if bad.any():
        first = names[bad][0]
        raise DataError(
            f"{int(bad.sum())} of {len(names)} pairs are not one of each kind, e.g. {first!r} with "
            f"{int(up[bad][0])} and {int(down[bad][0])}; leave them out or give other pairs"
        )
    rows = np.arange(len(positive))
    first_rows, second_rows = np.empty(len(names), np.int64), np.empty(len(names), np.int64)
    first_rows[index[positive]], second_rows[index[~positive]] = rows[positive], rows[~positive]
    return first_rows, second_rows, names


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length one, float64; a zero row stays zero."""
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
