"""Rules that the toolkit once used and that the audit broke; they live on here only, as the column *before*."""

from __future__ import annotations

import numpy as np

from ...locate.roles import onsets
from ...stats.auroc import weighted_auroc
from ...stats.resampling import Resampling
from .plant import Planted, probe_scores

REPLICATES = 100


def auroc_onsets(planted: Planted, seed: int) -> tuple[int, np.ndarray]:
    """Half-height onset of the AUROC curve above .5, and those of bootstrap replicates that do not refit."""
    scores = probe_scores(planted)
    draws = Resampling(planted.groups, REPLICATES, seed).weights()
    rows = np.concatenate([np.ones((1, len(scores))), draws])
    found = onsets(weighted_auroc(scores, planted.labels, rows, planted.fold), 0.5)["onset"]
    return int(np.nan_to_num(found[0])), found[1:]


def order(first: np.ndarray, second: np.ndarray, alpha: float = 0.05) -> int:
    """1 or 2: the role whose onset is earlier in nearly all replicates; 0 for none."""
    gap = second - first
    if (1 + int((~(gap > 0)).sum())) / (1 + len(gap)) < alpha:
        return 1
    return 2 if (1 + int((~(gap < 0)).sum())) / (1 + len(gap)) < alpha else 0


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """P-value of McNemar's exact test, which takes every item for independent."""
    from scipy.stats import binomtest

    up, down = int((first & ~second).sum()), int((~first & second).sum())
    return float(binomtest(up, up + down).pvalue) if up + down else 1.0


def test_items_only(first: np.ndarray, second: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float]:
    """Interval of a difference of AUROCs by a bootstrap over test items of one fitted pair."""
    weights = Resampling(None, REPLICATES, seed, n=len(labels)).weights()
    apart = weighted_auroc(np.stack([first, second], 1), labels, weights)
    low, high = np.quantile(apart[:, 0] - apart[:, 1], [0.025, 0.975])
    return float(low), float(high)
