"""Linear centred kernel alignment with the unbiased HSIC estimator (Song et al. 2012).

The biased estimate saturates near 1 where samples are fewer than dimensions, as activations always are.
"""

from __future__ import annotations

import numpy as np


def unbiased_hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """Unbiased HSIC of two kernel matrices ``[n, n]`` (Song et al. 2012, eq. 5), n >= 4."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    trace = float((k * l).sum())
    sums = k.sum() * l.sum() / ((n - 1) * (n - 2))
    cross = 2 * float(k.sum(0) @ l.sum(0)) / (n - 2)
    return (trace + sums - cross) / (n * (n - 3))


def cka(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """Debiased CKA of two kernel matrices ``[n, n]``; NaN where one of them is constant.

    Of Gram matrices ``x @ x.T`` it is linear CKA, near 0 for independent data whatever their number and width.
    """
    own = unbiased_hsic(k, k) * unbiased_hsic(l, l)
    return unbiased_hsic(k, l) / np.sqrt(own) if own > 0 else float("nan")


def centred_gram(rows: np.ndarray) -> np.ndarray:
    """Gram matrix ``[n, n]`` of the centred rows ``[n, d]``, scaled to a mean diagonal of one."""
    centred = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
    gram = centred @ centred.T
    return gram / max(np.trace(gram) / len(gram), 1e-300)
