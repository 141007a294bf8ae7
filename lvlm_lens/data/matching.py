"""Harmful and harmless samples made alike: in numbers such as length and brightness, or one said and one shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import DataError
from .dataset import Dataset
from .sample import Pair

MOST = 20_000_000
"""Combinations of harmful and harmless samples that are compared at once (160 MB of distances)."""


CALIPER = 0.2
"""Largest distance of a matched pair, in standard deviations of the logit (Austin, Pharm. Stat. 10, 2011)."""


def balanced(dataset: Dataset, features: np.ndarray, words: str = "the given features") -> Dataset:
    """Equally many harmful and harmless samples, alike in features that have nothing to do with harm.

    One-to-one matching on the propensity score (Rosenbaum and Rubin, Biometrika 70, 1983): a logistic regression tells
    the label from the features, and each harmful sample is kept with a harmless one whose logit lies within
    :data:`CALIPER`; as many pairs as possible, and the closest of these.  It balances the features on average, not
    pair by pair.  Samples without a joint label are left aside.  Deterministic.

    Args:
        dataset: samples with joint labels.
        features: ``[sample, feature]``, finite, in the order of the data set.
        words: what the features are, for the note that the result carries.

    Raises:
        DataError: a label is missing, nothing matches, or there are more than :data:`MOST` combinations.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.linear_model import LogisticRegression

    rows = np.flatnonzero([sample.harmful is not None for sample in dataset])
    labels = np.array([dataset[int(row)].harmful for row in rows], dtype=np.int64)
    up, down = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    if not len(up) or not len(down):
        raise DataError(
            f"matching needs both labels; data set {dataset.name!r} has {len(up)} harmful and {len(down)} harmless "
            "samples"
        )
    if len(up) * len(down) > MOST:
        raise DataError(f"{len(up)} x {len(down)} combinations are more than {MOST:,}; take a part with limit= first")
    x = np.asarray(features, dtype=np.float64)[rows]
    spread = x.std(0)
    x = (x - x.mean(0)) / np.where(spread > 0, spread, np.inf)
    logit = LogisticRegression(max_iter=1000).fit(x, labels).decision_function(x)
    apart = np.abs(logit[up][:, None] - logit[down])
    far = apart > CALIPER * logit.std()
    first, second = linear_sum_assignment(np.where(far, 1 + apart.max() * min(apart.shape), apart))
    near = ~far[first, second]
    up, down = up[first[near]], down[second[near]]
    if not len(up):
        raise DataError(f"no harmful sample of data set {dataset.name!r} is like a harmless one in {words}")
    before, after = (
        float(np.abs(x[a].mean(0) - x[b].mean(0)).max()) for a, b in ((labels == 1, labels == 0), (up, down))
    )
    kept = sorted(rows[np.r_[up, down]].tolist())
    note = (
        f"matched on {words}: {len(kept)} of {len(dataset)} samples kept, {len(up)} of each label; largest "
        f"standardised difference of means {before:.2f} before and {after:.2f} after"
    )
    return Dataset((dataset[row] for row in kept), dataset.name, dataset.problems, [*dataset.notes, note])


def form_pairs(dataset: Dataset) -> list[Pair]:
    """The same harmful request said in words (clean, more often refused) and shown in the picture (corrupted).

    For HADES, FigStep, MM-SafetyBench and :func:`~lvlm_lens.data.typography.to_typographic`: every harmful sample
    with a picture and a ``text_only`` version gives one pair.
    """
    return [
        Pair(replace(sample.without_images(), id=f"{sample.id}/words", counterfactual=sample.id), sample, "text")
        for sample in dataset
        if sample.harmful == 1 and sample.images and sample.text_only is not None
    ]
