"""Shared-semantics cosine (Semantic Hub, arXiv 2411.04986, read in the authors' code).

``cos(image_i, caption_i) - mean_j cos(image_i, caption_j)``, last token, one block: how much closer the run on an
image is to the run on its own caption than to the runs on other captions.  Its peak marks the space that the two
modalities share.  The null gives every image the caption of another, at random.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError
from ..stats.resampling import Resampling, weighted_mean
from .blocks import iterate
from .measure import Measure, pair_rows, unit_rows
from .spec import Measured, MeasureSpec
from .study import Study
from .versions import FEW, NEUTRAL, needs_language, version


class SharedSemantics(Measure):
    """Own-caption cosine above other captions' cosine, one value per block.

    Attributes:
        curve_: the mean over items; item_values_ ``[item, block]``.
    """

    name = "shared_semantics"
    unit = "cosine difference"
    source = "arXiv 2411.04986 [code]"

    def fit(self, activations: Any, labels: Any, groups: Any = None, pairs: Any = None) -> SharedSemantics:
        """Both runs in one array: ``labels`` larger value = image run, smaller = caption run.

        Args:
            activations: ``[sample, block, d]``.
            labels: which run a sample is.
            groups: resampled together; ``pairs``: item of each sample (default ``groups``).
            pairs: item names.
        """
        pairs = groups if pairs is None else pairs
        image, caption, _ = pair_rows(labels, pairs)
        group = None if groups is None else np.asarray(groups)[image]
        weights = Resampling(group, self.replicates, self.random_state, n=len(image)).weights().astype(np.float64)
        rng = np.random.default_rng(self.random_state + 1)
        orders = np.stack([rng.permutation(len(image)) for _ in range(self.permutations)])
        value, replicates, null = [], [], []
        for _, rows in iterate(activations, len(np.asarray(labels))):
            own, others = _own_and_others(rows, image, caption)
            value.append(own - others)
            replicates.append(weighted_mean(own - others, weights)[:, 0])
            cosine = unit_rows(rows[image]) @ unit_rows(rows[caption]).T
            total = cosine.sum(1)
            drawn = cosine[np.arange(len(image)), orders]  # [draw, item]
            null.append((drawn - (total - drawn) / (len(image) - 1)).mean(1))
        self.item_values_ = np.stack(value, 1)
        self.curve_ = self._keep(
            activations, self.item_values_.mean(0), replicates, null, len(image), name="shared semantics", n_is="items"
        )
        return self

    def score(self, activations: Any, labels: Any, pairs: Any) -> np.ndarray:
        """The measure on other items, ``[block]``."""
        image, caption, _ = pair_rows(labels, pairs)
        out = []
        for _, rows in iterate(activations, len(np.asarray(labels))):
            own, others = _own_and_others(rows, image, caption)
            out.append(float((own - others).mean()))
        return np.array(out)


def _own_and_others(rows: np.ndarray, image: np.ndarray, caption: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine with the own caption, and mean cosine with the other captions, ``[item]`` each."""
    cosine = unit_rows(rows[image]) @ unit_rows(rows[caption]).T
    own = np.diag(cosine)
    return own, (cosine.sum(1) - own) / (len(image) - 1)


def _one_a_caption(study: Study) -> np.ndarray:
    """Rows with a picture and a caption, one a distinct caption: other captions must be other captions."""
    seen: dict[str, int] = {}
    for row, sample in enumerate(study.samples):
        if len(sample.images) == 1 and sample.caption:
            seen.setdefault(sample.caption, row)
    return np.asarray(sorted(seen.values()), dtype=np.int64)


def _compute(study: Study) -> Measured:
    needs_language(study)
    rows = _one_a_caption(study)
    if len(rows) < 8:
        raise DataError(f"{len(rows)} different captions of single pictures; at least 8 are needed")
    rows = study.some(rows, FEW)
    shown = [version(study.samples[row], "picture", NEUTRAL, True) for row in rows]
    said = [version(study.samples[row], "caption", f"{study.samples[row].caption}.", False) for row in rows]
    both = np.concatenate([study.states("picture alone", shown), study.states("caption alone", said)])
    kind, item = np.repeat([1, 0], len(rows)), np.tile(np.arange(len(rows)), 2)
    return Measured(SharedSemantics(**study.draws).fit(both, kind, np.tile(study.groups[rows], 2), item).curve_)


SPEC = MeasureSpec(
    "shared_semantics", "semantics", "forward", SharedSemantics.source,
    "is the run on a picture near the run on its own caption? (not counted: it peaks where the space is "
    "shared, whatever is understood there)", _compute, votes=False, expected=(),
    rows=lambda size: 2 * min(FEW, size.items),
    untested="the pictures of constructed models have no captions: no words mean what a picture shows",
)  # fmt: skip
