"""The one classifier that defences share: L2 logistic regression, exactly scikit-learn's objective.

A thin face of :mod:`lvlm_lens.stats.logistic`, which solves it in the span of the training rows, so that
ten thousand first-token logits cost no more than as many features as there are samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..errors import DataError, NumericalError
from ..stats.logistic import solve, span


class LogisticProbe:
    """Logistic regression on raw features (nothing is standardised unless asked for).

    Args:
        C: inverse regularisation, as in scikit-learn.
        balanced: weight the classes equally, as ``class_weight="balanced"``.
        standardize: unit variance of each feature of the training rows.

    Attributes (after ``fit``): ``coef_`` float64 ``[feature]`` and ``intercept_``, for raw features.
    """

    def __init__(self, C: float = 1.0, balanced: bool = True, standardize: bool = False) -> None:
        self.C = C
        self.balanced = balanced
        self.standardize = standardize

    def fit(self, rows: Any, labels: Any) -> LogisticProbe:
        """Fit on ``rows [sample, feature]`` and ``labels [sample]`` of 0 and 1.

        Raises:
            DataError: one class only.
            NumericalError: NaN or infinity, or no convergence.
        """
        rows = np.asarray(rows, dtype=np.float32)
        codes = np.asarray(labels).astype(np.int64)
        counts = np.bincount(codes, minlength=2)
        if len(counts) != 2 or (counts == 0).any():
            raise DataError(
                f"the training set holds {counts[0]} harmless and {counts[1:].sum()} harmful sample(s); both are needed"
            )
        if not np.isfinite(rows).all():
            raise NumericalError("the probe's features hold NaN or infinity; run the model in float32 or bfloat16")
        if (rows == rows[0]).all():  # nothing varies, so nothing is learnt but the share of the classes
            self.coef_ = np.zeros(rows.shape[1])
            self.intercept_ = 0.0 if self.balanced else float(np.log(counts[1] / counts[0]))
            return self
        weights = torch.from_numpy(len(codes) / (2 * counts))[codes][None] if self.balanced else None  # [1, sample]
        data = span(torch.from_numpy(rows), standardize=self.standardize)
        targets = torch.from_numpy(codes.astype(np.float64))[None, None]  # [1 problem, 1 class, sample]
        penalty = torch.tensor([1.0 / self.C], dtype=torch.float64)
        beta, intercept = solve(data, targets, penalty, weights)
        coef = data.lift(beta[:, 0])[0] / data.scale  # [feature], for raw features
        self.coef_ = coef.numpy()
        self.intercept_ = float(intercept[0, 0] - coef @ data.mean)
        return self

    def decision_function(self, rows: Any) -> np.ndarray:
        """Log-odds of class 1, float64 ``[sample]``."""
        return np.asarray(rows, dtype=np.float64) @ self.coef_ + self.intercept_

    def predict_proba(self, rows: Any) -> np.ndarray:
        """Probability of class 1, float64 ``[sample]``."""
        return 1.0 / (1.0 + np.exp(-np.clip(self.decision_function(rows), -700, 700)))
