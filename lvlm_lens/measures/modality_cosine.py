"""Modality cosine: how much of the combined input's vector is that of one modality alone [3P for SASA].

The combined run (image and text) of an item is compared with the run on its text alone, or on its image with a
neutral prompt: the mean cosine, one value per block.  Raw cosines are high everywhere because all runs share a large
common vector; ``centred=True`` takes the mean of each kind of run off first.  The null compares the combined run with
the single-modality run of *another* item, so the distance between curve and null is what the item itself shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from ..stats.resampling import Resampling, weighted_mean
from .blocks import iterate
from .measure import Measure, pair_rows, unit_rows
from .spec import Measured, MeasureSpec
from .study import Study
from .versions import FEW, NEUTRAL, needs_language, version


@dataclass(eq=False, repr=False)
class ModalityCosine(Measure):
    """Mean cosine of combined and single-modality runs, one value per block.

    Args:
        centred: take off the mean of each kind of run.
        replicates, permutations, confidence, random_state: see :class:`~.measure.Measure`.

    Attributes:
        curve_; item_values_ ``[item, block]``.
    """

    name = "modality_cosine"
    unit = "cosine"
    source = "SASA (arXiv 2507.21637), read in an independent reimplementation only [3P]; centred version [own]"

    centred: bool = False

    def fit(self, activations: Any, labels: Any, groups: Any = None, pairs: Any = None) -> ModalityCosine:
        """Both runs in one array: ``labels`` larger value = combined run, smaller = single-modality run.

        ``pairs`` (default ``groups``) names the item of each sample.
        """
        pairs = groups if pairs is None else pairs
        combined, single, _ = pair_rows(labels, pairs)
        group = None if groups is None else np.asarray(groups)[combined]
        weights = Resampling(group, self.replicates, self.random_state, n=len(combined)).weights().astype(np.float64)
        rng = np.random.default_rng(self.random_state + 1)
        orders = np.stack([_derangement(len(combined), rng) for _ in range(self.permutations)])
        value, replicates, null = [], [], []
        for _, rows in iterate(activations, len(np.asarray(labels))):
            cosine = self._cosine(rows, combined, single)
            own = np.diag(cosine)
            value.append(own)
            replicates.append(weighted_mean(own, weights)[:, 0])
            null.append(cosine[np.arange(len(combined)), orders].mean(1))
        self.item_values_ = np.stack(value, 1)
        self.curve_ = self._keep(
            activations,
            self.item_values_.mean(0),
            replicates,
            null,
            len(combined),
            name="modality cosine",
            n_is="items",
        )
        return self

    def _cosine(self, rows: np.ndarray, combined: np.ndarray, single: np.ndarray) -> np.ndarray:
        a, b = rows[combined].astype(np.float64), rows[single].astype(np.float64)
        if self.centred:
            a, b = a - a.mean(0), b - b.mean(0)
        return unit_rows(a) @ unit_rows(b).T

    def score(self, activations: Any, labels: Any, pairs: Any) -> np.ndarray:
        """Mean cosine of other items, ``[block]``."""
        combined, single, _ = pair_rows(labels, pairs)
        n = len(np.asarray(labels))
        return np.array([np.diag(self._cosine(r, combined, single)).mean() for _, r in iterate(activations, n)])


def _derangement(n: int, rng: np.random.Generator) -> np.ndarray:
    """A random cyclic assignment in which no item meets itself."""
    order = rng.permutation(n)
    out = np.empty(n, dtype=np.int64)
    out[order] = np.roll(order, 1)
    return out


def _compute(study: Study) -> Measured:
    needs_language(study)
    rows = np.flatnonzero([bool(sample.images) for sample in study.samples])
    if len(rows) < 8:
        raise DataError(f"{len(rows)} items with a picture; at least 8 are needed")
    rows = study.some(rows, FEW)
    whole = study.last[rows]
    kind, item = np.repeat([1, 0], len(rows)), np.tile(np.arange(len(rows)), 2)
    curves = {}
    for name, made in (
        ("words", [version(study.samples[row], "words", study.samples[row].text, False) for row in rows]),
        ("picture", [version(study.samples[row], "picture", NEUTRAL, True) for row in rows]),
    ):
        both = np.concatenate([whole, study.states(f"{name} alone", made)])
        curves[name] = ModalityCosine(True, **study.draws).fit(both, kind, np.tile(study.groups[rows], 2), item).curve_
    return Measured(curves["words"], {"modality_cosine_picture": curves["picture"]})


SPEC = MeasureSpec(
    "modality_cosine", "semantics", "forward", ModalityCosine.source,
    "what of the combined vector is the words' (the picture's) own; centred (not counted: it falls where "
    "modalities fuse)", _compute, votes=False, expected=(), rows=lambda size: 2 * min(FEW, size.items),
    untested="it falls where something new is made and rises nowhere, so there is no onset to be right about",
)  # fmt: skip
