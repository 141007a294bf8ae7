"""What a measure has to beat besides its null: words, the picture, the input, and what has nothing to do with harm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..data import Sample
from .nuisance import nuisance_features

if TYPE_CHECKING:
    from .evidence import Evidence


def text_features(samples: Sequence[Sample]) -> np.ndarray:
    """TF-IDF of words and word pairs of the users' words, float32 ``[n, features]``: the text-only baseline."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), max_features=4000, sublinear_tf=True)
    texts = [sample.text for sample in samples]
    try:
        return vectorizer.fit_transform(texts).toarray().astype(np.float32)
    except ValueError:  # no word of two letters anywhere: characters instead
        return TfidfVectorizer(analyzer="char", ngram_range=(1, 3)).fit_transform(texts).toarray().astype(np.float32)


def baseline_features(evidence: Evidence) -> dict[str, np.ndarray]:
    """Features of the unimodal and input baselines; a picture's features are zero where there is none."""
    features = {
        "text_only": text_features(evidence.samples),
        "nuisance": nuisance_features(evidence.samples, evidence.tokens),
        "input_embedding": evidence.embedding,
    }
    if evidence.image is not None and np.isfinite(evidence.image).any():
        features["image_only"] = np.nan_to_num(evidence.image, nan=0.0)
    return features
