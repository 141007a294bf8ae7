"""Linear probes at every block: harmful against harmless, cross-validated by group, with null and interval.

A probe at block l is an L2 logistic regression on that block's activations.  Its curve is the AUROC of
out-of-fold scores: folds are made once, of whole groups, and are the same for every block, label shuffle and
baseline; standardisation and the choice of C happen inside the training part.  The AUROC compares only
samples scored by the same fitted probe (same fold).  The interval is a cluster bootstrap over groups of
the out-of-fold scores (it does not refit, as is usual); the null refits everything on labels shuffled
within the group structure (:func:`~lvlm_lens.stats.resampling.permute_labels`).

Fast because one rotation of a block's training rows serves every C and every shuffle
(:mod:`~lvlm_lens.stats.logistic`).  Blocks are read one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from ..errors import DataError, UsageError, context
from ..progress import each, part, step
from ..stats.auroc import binary_labels, expected_calibration_error, weighted_auprc, weighted_auroc, weighted_tpr_at_fpr
from ..stats.choice import fold_curve
from ..stats.crossfit import Settings, decision, grid_coefficients, out_of_fold, sigmoid
from ..stats.curve import Baseline, Curve, curve_from_draws
from ..stats.groups import sample_words
from ..stats.onset import rises
from ..stats.resampling import Resampling, group_folds, permute_labels
from ..stats.strength import measure_strength
from .baselines import baseline_features
from .blocks import Blocks, as_blocks, iterate
from .evidence import Evidence
from .spec import ALL_BASELINES, Measured, MeasureSpec
from .study import Study

METRICS = ("auroc", "auprc", "tpr_at_1_fpr", "ece")
_UNITS = {"auroc": "AUROC", "auprc": "AUPRC", "tpr_at_1_fpr": "TPR at 1 % FPR", "ece": "ECE"}


@dataclass(eq=False, repr=False)
class LinearProbe(BaseEstimator):
    """L2 logistic regression at each block.

    Source: group-wise cross-validated logistic regression [own]; pipeline equal to
    scikit-learn's ``StandardScaler`` + ``LogisticRegression`` (coefficients agree to 1e-4 relative, tested).

    Args:
        C: inverse regularisation; a sequence means nested choice by inner AUROC (the shuffles of the null are
            then fitted at the block's median choice: a choice made inside the folds cannot lift the AUROC of
            labels that carry nothing).
        folds: outer folds, of whole groups.
        standardize: ``True``: unit variance of each feature, from the training part of the fold;
            ``"rms"``: one scale for all features; ``False``: none (:class:`~lvlm_lens.stats.crossfit.Settings`).
        class_weight: ``None`` or ``"balanced"``.
        permutations: label shuffles of the null; 0 for none.
        replicates: bootstrap replicates; 0 for none.
        confidence: of intervals.
        random_state: seed of folds, shuffles and bootstrap.

    Attributes (after ``fit``):
        blocks_: ``[block]``; classes_: the two label values; groups_: ``[sample]`` or ``None``.
        coef_ ``[block, d]``, intercept_ ``[block]``: fitted on all samples, for raw features (unless left out).
        C_ ``[block]``: used for them (median of the folds' choices); fold_C_ ``[block, fold]``.
        fold_ ``[sample]``; scores_ ``[sample, block]``: out-of-fold decision values (log-odds).
        null_labels_ ``[draw, sample]``, null_scores_ ``[draw, sample, block]`` (float32).
        curve_: AUROC :class:`~lvlm_lens.stats.curve.Curve` with replicates and null draws.
    """

    C: float | Sequence[float] = 0.01
    folds: int = 5
    standardize: bool | str = True
    class_weight: str | None = None
    permutations: int = 50
    replicates: int = 1000
    confidence: float = 0.95
    random_state: int = 0

    def fit(
        self,
        activations: Any,
        labels: Any,
        groups: Any = None,
        name: str = "probe",
        fold: np.ndarray | None = None,
        whole: bool = True,
    ) -> LinearProbe:
        """Fit, cross-validate, shuffle and bootstrap.

        Args:
            activations: ``[sample, block, d_model]`` or :class:`~lvlm_lens.measures.blocks.Blocks`.
            labels: ``[sample]``, two values; the larger is the positive class (harmful).
            groups: ``[sample]``; samples of one group never stand on both sides.
            name: of ``curve_``.
            fold: ``[sample]`` given folds, e.g. another probe's ``fold_``; default made here.
            whole: also fit on all samples (``coef_``, ``intercept_``), which a curve alone does not need.

        Raises:
            DataError: one class only, too few groups.
            NumericalError: NaN in a block (named), or no convergence (block named).
            UsageError: counts that do not match, C not positive.
        """
        labels = np.asarray(labels)
        positive = binary_labels(labels)
        self.classes_ = np.unique(labels)
        cs = np.sort(np.atleast_1d(np.asarray(self.C, dtype=np.float64)))
        if not len(cs) or (cs <= 0).any():
            raise UsageError(f"C is {self.C!r}; give a positive number, or several for a nested choice")
        settings = Settings(self.standardize, self.class_weight, loose=1e-2)
        self.groups_ = None if groups is None else np.asarray(groups)
        self.labels_ = positive.astype(np.int64)
        self.fold_ = group_folds(self.labels_, groups, self.folds, self.random_state) if fold is None else fold
        if len(self.fold_) != len(labels):
            raise UsageError(f"{len(self.fold_)} folds given for {len(labels)} labels")
        self.null_labels_ = self._usable_shuffles()
        own, shuffled = self.labels_[:, None], self.null_labels_.T  # [sample, 1], [sample, draw]
        everyone = np.ones((1, len(labels)), dtype=bool)
        source = as_blocks(activations)
        scores, null, fold_c, coefs, intercepts = [], [], [], [], []
        for block, rows in iterate(source, len(labels)):
            with context(f"block {block}"):
                if len(cs) == 1:
                    together = np.concatenate([own, shuffled], 1)
                    values, used = out_of_fold(rows, together, self.fold_, cs, settings)
                    mine, drawn = values[:, 0, 0], values[:, 1:, 0]
                else:
                    values, used = out_of_fold(rows, own, self.fold_, cs, settings)
                    mine, drawn = values[:, 0, 0], np.empty((len(rows), 0))
                best = np.exp(np.median(np.log(used[:, :1]), axis=0))
                if len(cs) > 1 and shuffled.shape[1]:
                    drawn = out_of_fold(rows, shuffled, self.fold_, best, settings)[0][..., 0]
                if whole:
                    coef, intercept = grid_coefficients(rows, own, everyone, best, settings)
                    coefs.append(coef[0, 0, 0, 0])
                    intercepts.append(intercept[0, 0, 0, 0])
            scores.append(mine)
            null.append(drawn.T.astype(np.float32))
            fold_c.append(used[:, 0])
            step(len(scores), len(source.blocks))
        self.blocks_ = [int(b) for b in source.blocks]
        self.scores_ = np.stack(scores, 1)
        self.null_scores_ = np.stack(null, -1)
        self.fold_C_ = np.stack(fold_c)
        self.C_ = np.exp(np.median(np.log(self.fold_C_), 1))
        if whole:
            self.coef_, self.intercept_ = np.stack(coefs), np.array(intercepts)
        self.curve_ = self.curve("auroc", name)
        return self

    def _usable_shuffles(self) -> np.ndarray:
        """Shuffles that leave both classes in every training part."""
        if not self.permutations:
            return np.empty((0, len(self.labels_)), dtype=np.int64)
        drawn = permute_labels(self.labels_, self.groups_, 2 * self.permutations, self.random_state + 1)
        parts = [self.fold_ != k for k in np.unique(self.fold_)]
        good = [row for row in drawn if all(len(np.unique(row[part])) == 2 for part in parts)]
        if len(good) < self.permutations:
            raise DataError(
                f"only {len(good)} of {len(drawn)} label shuffles leave both classes in every fold's training part; "
                "use fewer folds, more groups, or permutations=0"
            )
        return np.stack(good[: self.permutations])

    def curve(self, metric: str = "auroc", name: str | None = None) -> Curve:
        """Curve of one metric of the out-of-fold scores: ``auroc``, ``auprc``, ``tpr_at_1_fpr`` or ``ece``."""
        if metric not in METRICS:
            raise UsageError(f"metric {metric!r}; there are {', '.join(METRICS)}")
        if metric == "auroc":
            weights = None
            if self.replicates:
                weights = Resampling(self.groups_, self.replicates, self.random_state, n=len(self.labels_)).weights()
            return fold_curve(
                name or metric, self.blocks_, self.scores_, self.labels_, self.fold_, weights,
                list(zip(self.null_scores_, self.null_labels_, strict=True)), self.confidence,
                meta={"measure": "linear_probe", "metric": metric, **self._meta()},
            )  # fmt: skip
        value = self._metric(metric, self.scores_, self.labels_, None)[0]
        replicates = None
        if self.replicates:
            draws = Resampling(self.groups_, self.replicates, self.random_state, n=len(self.labels_))
            replicates = self._metric(metric, self.scores_, self.labels_, draws.weights())
        null = None
        if len(self.null_labels_):
            rows = zip(self.null_scores_, self.null_labels_, strict=True)
            null = np.stack([self._metric(metric, s, y, None)[0] for s, y in rows])
        return curve_from_draws(
            name or metric,
            self.blocks_,
            value,
            replicates,
            null,
            self.confidence,
            unit=_UNITS[metric],
            n=len(self.labels_),
            meta={"measure": "linear_probe", "metric": metric, **self._meta()},
        )

    def _meta(self) -> dict[str, Any]:
        groups = len(self.labels_) if self.groups_ is None else len(np.unique(self.groups_))
        c = self.C if np.ndim(self.C) == 0 else [float(x) for x in np.asarray(self.C)]
        return {
            "positives": int(self.labels_.sum()), "groups": groups, "folds": self.folds, "C": c,
            "standardize": self.standardize, "class_weight": self.class_weight, "permutations": self.permutations,
            "replicates": self.replicates, "confidence": self.confidence, "random_state": self.random_state,
        }  # fmt: skip

    def _metric(self, metric: str, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        if metric == "auprc":
            return weighted_auprc(scores, labels, weights)
        if metric == "tpr_at_1_fpr":
            return weighted_tpr_at_fpr(scores, labels, 0.01, weights)
        return expected_calibration_error(sigmoid(scores), labels, weights=weights)

    def decision_function(self, activations: Any) -> np.ndarray:
        """Log-odds of the positive class for new samples, ``[sample, block]``."""
        source = self._same_blocks(activations)
        columns = []
        for at, (block, rows) in enumerate(iterate(source)):
            if rows.shape[1] != self.coef_.shape[1]:
                raise UsageError(f"block {block} has width {rows.shape[1]}; the probe has {self.coef_.shape[1]}")
            columns.append(decision(rows, self.coef_[at][None], self.intercept_[at : at + 1])[:, 0])
        return np.stack(columns, 1)

    def _same_blocks(self, activations: Any) -> Blocks:
        source = as_blocks(activations)
        if len(source.blocks) != len(self.blocks_):
            raise UsageError(f"{len(source.blocks)} blocks given; the probe was fitted on {len(self.blocks_)}")
        return source

    def predict_proba(self, activations: Any) -> np.ndarray:
        """Probabilities ``[sample, block, 2]``."""
        p = sigmoid(self.decision_function(activations))
        return np.stack([1 - p, p], -1)

    def predict(self, activations: Any) -> np.ndarray:
        """Label values ``[sample, block]``."""
        return self.classes_[(self.decision_function(activations) > 0).astype(int)]

    def score(self, activations: Any, labels: Any) -> np.ndarray:
        """AUROC on new samples, ``[block]``."""
        return weighted_auroc(self.decision_function(activations), labels)[0]

    def transfer(self, activations: Any, labels: Any, groups: Any = None, name: str = "transfer") -> Curve:
        """Score another data set with this probe: AUROC with interval over its groups, null by shuffling its labels."""
        scores = self.decision_function(activations)
        value = weighted_auroc(scores, labels)[0]
        draws = Resampling(groups, self.replicates, self.random_state, n=len(scores)) if self.replicates else None
        replicates = None if draws is None else weighted_auroc(scores, labels, draws.weights())
        shuffled = permute_labels(binary_labels(labels), groups, max(self.permutations, 20), self.random_state + 1)
        null = np.stack([weighted_auroc(scores, y)[0] for y in shuffled])
        return curve_from_draws(
            name, self.blocks_, value, replicates, null, self.confidence, unit="AUROC", n=len(scores),
            meta={"measure": "linear_probe", "metric": "auroc", "transfer": True, **self._meta()},
        )  # fmt: skip

    def baseline(self, features: Any) -> Baseline:
        """The same probe, folds and groups on other features of the same samples, e.g. a bag of words.

        Args:
            features: ``[sample, feature]``.

        Returns:
            Scalar AUROC with its interval, for :meth:`~lvlm_lens.stats.curve.Curve.with_baseline`.
        """
        from sklearn.base import clone

        other = clone(self).set_params(permutations=0)
        curve = other.fit(features, self.labels_, self.groups_, fold=self.fold_, whole=False).curve_
        return Baseline(float(curve.value[0]), float(curve.low[0]), float(curve.high[0]), curve.replicates)


def probed(
    name: str, evidence: Evidence, twin: Evidence | None, y: np.ndarray, groups: np.ndarray, settings: dict[str, Any]
) -> tuple[Curve, LinearProbe]:
    """A probe's curve with its baselines (words, picture, input, nuisance, twin), and the fitted probe."""
    with part(0.0, 0.5):
        fitted = LinearProbe(**settings).fit(evidence, y, groups, name)
    curve = fitted.curve_
    with part(0.5, 0.8, "baselines"):
        features = baseline_features(evidence)
        for key in each(list(features)):
            curve = curve.with_baseline(key, fitted.baseline(features[key]))
    if twin is not None:
        with part(0.8, 1.0, "twin"):
            unshuffled = LinearProbe(**{**settings, "permutations": 0})
            other = unshuffled.fit(twin, y, groups, fold=fitted.fold_, whole=False)
        curve = curve.with_baseline("random_twin", other.curve_)
    return replace(curve, meta={**curve.meta, "depth": evidence.depth, "sample": sample_words(y, groups)}), fitted


def with_rise(
    curve: Curve, activations: Any, labels: np.ndarray, groups: np.ndarray, fold: np.ndarray, seed: int
) -> Curve:
    """A probe's curve with its onsets; ``activations [n, block, d]``, or what :func:`~.blocks.as_blocks` takes."""
    source = as_blocks(activations)
    sign = np.where(np.asarray(labels) > 0, 1, -1)
    strength = measure_strength((source.block(block) for block in source.blocks), sign, groups, fold, seed=seed)
    return replace(curve, rise=rises(strength, seed=seed)[0])


def _compute(study: Study) -> Measured:
    return Measured(study.located.curves["perception"])


SPEC = MeasureSpec(
    "linear_probe", "perception", "free", "group-wise cross-validated logistic regression",
    "AUROC of a linear probe, harmful against harmless", _compute, default=True, expected=ALL_BASELINES,
    planted="danger",
)  # fmt: skip
