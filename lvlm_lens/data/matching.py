"""Pairs where the authors give none: the nearest harmless sample to each harmful one.

Nearness is the cosine of TF-IDF vectors (words and word pairs), each harmless sample is used once,
and with a token counter only pairs of equal length are made: patching engines need equal positions.
This is our construction, not that of any benchmark: read the similarity before trusting a pair.
:func:`balanced` matches on numbers instead, such as length and brightness, so that these no longer tell the label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..errors import DataError
from .dataset import Dataset
from .sample import Pair, Sample

MOST = 20_000_000
"""Combinations of harmful and harmless samples that are compared at once (160 MB of cosines)."""


@dataclass(frozen=True)
class Matching:
    """Pairs with their cosine similarity, and the harmful samples for which none was found."""

    pairs: tuple[Pair, ...]
    similarity: tuple[float, ...]
    unmatched: tuple[str, ...]

    def apply(self, dataset: Dataset) -> Dataset:
        """``dataset`` with each found pair written as counterfactuals of each other, in one group."""
        partner: dict[str, str] = {}
        group: dict[str, str] = {}
        for pair in self.pairs:
            partner[pair.clean.id], partner[pair.corrupted.id] = pair.corrupted.id, pair.clean.id
            group[pair.clean.id] = group[pair.corrupted.id] = pair.clean.group or pair.clean.id
        samples = (
            replace(sample, counterfactual=partner[sample.id], group=group[sample.id])
            if sample.id in partner
            else sample
            for sample in dataset
        )
        note = f"{len(self.pairs)} pairs by nearest neighbour (TF-IDF cosine), {len(self.unmatched)} without a match"
        return Dataset(samples, dataset.name, dataset.problems, [*dataset.notes, note])


def _words(sample: Sample) -> str:
    return sample.text_only or sample.text


def _equal(rows: list[Sample], columns: list[Sample], key: Callable[[Sample], object]) -> np.ndarray:
    """Where the key of a row equals that of a column: bool ``[rows, columns]``."""
    codes: dict[object, int] = {}
    numbers = np.array([codes.setdefault(key(sample), len(codes)) for sample in rows + columns])
    return numbers[: len(rows), None] == numbers[None, len(rows) :]


def match_pairs(
    dataset: Dataset,
    *,
    token_count: Callable[[Sample], int] | None = None,
    tolerance: int = 0,
    min_similarity: float = 0.0,
    within: Callable[[Sample], object] | None = None,
) -> Matching:
    """Match every harmful sample with its nearest unused harmless one, best pairs first.

    Args:
        dataset: samples with joint labels; unlabelled ones are left aside.
        token_count: the number of tokens of a sample; pairs may then differ by at most ``tolerance``.
        min_similarity: cosine below which no pair is made.
        within: only samples with equal values of this are paired (``lambda s: s.category``).

    Only samples with the same number of pictures are paired.  Deterministic.

    Raises:
        DataError: when one of the two labels is missing, or there are more than :data:`MOST` combinations.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    harmful = [sample for sample in dataset if sample.harmful == 1]
    harmless = [sample for sample in dataset if sample.harmful == 0]
    if not harmful or not harmless:
        raise DataError(
            f"pairs need both labels; data set {dataset.name!r} has {len(harmful)} unsafe "
            f"and {len(harmless)} safe samples"
        )
    vectors = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b").fit_transform(
        [_words(sample) for sample in harmful + harmless]
    )
    if len(harmful) * len(harmless) > MOST:
        raise DataError(
            f"{len(harmful)} x {len(harmless)} combinations are more than {MOST:,}; take a part with limit= or "
            "Dataset.filter first"
        )
    cosine = (vectors[: len(harmful)] @ vectors[len(harmful) :].T).toarray()  # [harmful, harmless]
    allowed = cosine >= min_similarity
    allowed &= _equal(harmful, harmless, lambda sample: len(sample.images))
    if within is not None:
        allowed &= _equal(harmful, harmless, within)
    if token_count is not None:
        lengths = np.array([token_count(sample) for sample in harmful + harmless])
        allowed &= np.abs(lengths[: len(harmful), None] - lengths[None, len(harmful) :]) <= tolerance
    found: dict[int, int] = {}
    used: set[int] = set()
    rows, columns = np.nonzero(allowed)
    order = np.lexsort((columns, rows, -cosine[rows, columns]))  # best first; ties by position
    for index in order:
        row, column = int(rows[index]), int(columns[index])
        if row not in found and column not in used:
            found[row] = column
            used.add(column)
    pairs, similarity = [], []
    for row in sorted(found):
        clean, corrupted = harmful[row], harmless[found[row]]
        same_text = clean.text == corrupted.text
        pairs.append(Pair(clean, corrupted, "image" if same_text else "text"))
        similarity.append(float(cosine[row, found[row]]))
    unmatched = tuple(sample.id for row, sample in enumerate(harmful) if row not in found)
    return Matching(tuple(pairs), tuple(similarity), unmatched)


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
