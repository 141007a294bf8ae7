"""The difference of two AUROCs after any swaps, from parts, against scikit-learn on the swapped scores."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from lvlm_lens.stats.maxt import max_t
from lvlm_lens.stats.paired_auroc import paired_auroc_parts


def test_parts_give_the_difference_after_every_swap() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([1, 0, 0, 1, 1, 0, 0])
    a, b = np.round(rng.normal(size=(2, 7)) + labels, 1), 100 * rng.normal(size=7)
    parts = paired_auroc_parts(a, b, labels)
    for row, own in zip(a, parts, strict=True):
        ranks = rankdata(row), rankdata(b)
        for signs in product([1, -1], repeat=7):
            swapped = [np.where(np.array(signs) > 0, *pair) for pair in (ranks, ranks[::-1])]
            difference = roc_auc_score(labels, swapped[0]) - roc_auc_score(labels, swapped[1])
            assert own @ np.array(signs) == pytest.approx(difference, abs=1e-12)


def test_one_cell_of_many_gains() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(80) % 2
    common = rng.normal(size=80) + labels
    cells = common + 0.7 * rng.normal(size=(200, 80))
    cells[17] += 3 * labels
    found = max_t(paired_auroc_parts(cells, common + 0.7 * rng.normal(size=80), labels), np.arange(80) // 2)
    assert found.adjusted[17] <= 0.01 and found.adjusted.argmin() == 17
    same = paired_auroc_parts(common, 3 * common, labels)
    assert np.abs(same).max() == 0 and max_t(same, range(80)).adjusted[0] == 1
    with pytest.raises(ValueError, match="positive and negative"):
        paired_auroc_parts(common, common, np.ones(80))
