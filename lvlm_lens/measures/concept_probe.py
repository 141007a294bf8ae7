"""Concept probes: which object, which activity, which hazard; multinomial, by block.

A concept probe is a multinomial L2 logistic regression on one block, cross-validated by group; its curve is the
accuracy of out-of-fold predictions.  The null keeps the predictions and shuffles the labels against them
(within the group structure): it tests whether predictions and labels are associated, and needs no refit of a
many-class model.  [own]  The *joint* concept (needs image and text) is binary: use
:class:`~lvlm_lens.measures.linear_probe.LinearProbe` with both unimodal baselines; it is called fused only above both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import DataError, UsageError, context
from ..stats.crossfit import Settings, decision, grid_coefficients, out_of_fold
from ..stats.curve import Baseline, Curve
from ..stats.resampling import group_folds, permute_labels, weighted_mean
from .blocks import SelectedBlocks, as_blocks, iterate
from .items import joint_items
from .measure import Measure
from .spec import ALL_BASELINES, Measured, MeasureSpec
from .study import Study


@dataclass(eq=False, repr=False)
class ConceptProbe(Measure):
    """Multinomial probe of one concept, accuracy by block.

    Args:
        C: inverse regularisation; a sequence means nested choice by inner log-likelihood.
        folds, standardize: as in :class:`~lvlm_lens.measures.linear_probe.LinearProbe`.
        replicates, permutations, confidence, random_state: see :class:`~.measure.Measure`.

    Attributes:
        curve_: accuracy; classes_: label values, those found in fewer than two groups left out;
        dropped_: how many samples that cost; predictions_ ``[sample, block]`` out-of-fold class numbers;
        coef_ ``[block, class, d]``, intercept_ ``[block, class]`` from all samples; fold_ ``[sample]``.
    """

    name = "concept_probe"
    unit = "accuracy"
    source = "multinomial probe and association null [own]"

    C: float | Sequence[float] = 0.01
    folds: int = 5
    standardize: bool | str = True

    def fit(self, activations: Any, labels: Any, groups: Any = None, name: str | None = None) -> ConceptProbe:
        """``labels [sample]``: any values, ``""`` or ``None`` for unknown (left out); ``groups`` stay on one side."""
        labels = np.array(["" if x is None else str(x) for x in np.asarray(labels, dtype=object)])
        index = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
        names, codes = np.unique(labels, return_inverse=True)
        codes = codes.reshape(-1)
        spread = np.array([len(np.unique(index[codes == c])) for c in range(len(names))])
        keep = (labels != "") & (spread[codes] >= 2)
        self.dropped_ = int((~keep).sum())
        self.classes_, codes = np.unique(labels[keep], return_inverse=True)
        codes = codes.reshape(-1)
        if len(self.classes_) < 2:
            raise DataError(
                f"{len(self.classes_)} of {len(names)} concept values stand in two groups or more; a concept whose "
                "value never crosses groups cannot be tested on groups it was not trained on: give other groups"
            )
        self.rows_ = np.flatnonzero(keep)
        index = index[keep]
        self.fold_ = group_folds(codes, index, self.folds, self.random_state, rare=True)
        cs = np.sort(np.atleast_1d(np.asarray(self.C, dtype=np.float64)))
        if (cs <= 0).any():
            raise UsageError(f"C is {self.C!r}; give positive numbers")
        settings, k = Settings(self.standardize), len(self.classes_)
        source = SelectedBlocks(activations, self.rows_)
        if len(as_blocks(activations).block(source.blocks[0])) != len(labels):
            raise UsageError(
                f"{len(as_blocks(activations).block(source.blocks[0]))} samples in block {source.blocks[0]}, "
                f"but {len(labels)} labels were given"
            )
        everyone = np.ones((1, len(codes)), dtype=bool)
        predictions, coefs, intercepts = [], [], []
        for block, rows in iterate(source, len(codes)):
            with context(f"block {block}"):
                scores, used = out_of_fold(rows, codes[:, None], self.fold_, cs, settings, k)
                best = np.exp(np.median(np.log(used[:, :1]), axis=0))
                coef, intercept = grid_coefficients(rows, codes[:, None], everyone, best, settings, k)
            predictions.append(scores[:, 0].argmax(-1))
            coefs.append(coef[0, 0, 0])
            intercepts.append(intercept[0, 0, 0])
        self.predictions_ = np.stack(predictions, 1)
        self.coef_, self.intercept_ = np.stack(coefs), np.stack(intercepts)
        right = (self.predictions_ == codes[:, None]).astype(np.float64)
        shuffled = permute_labels(codes, index, self.permutations, self.random_state + 1)
        null = np.stack([(self.predictions_ == y[:, None]).mean(0) for y in shuffled])
        replicates = weighted_mean(right, self._weights(index, len(codes)))
        self.curve_ = self._keep(
            source, right.mean(0), list(replicates.T), list(null.T), len(codes), name=name or "concept",
            classes=k, dropped=self.dropped_,
        )  # fmt: skip
        return self

    def predict(self, activations: Any) -> np.ndarray:
        """Label values ``[sample, block]``."""
        out = []
        for at, (_, rows) in enumerate(iterate(activations)):
            out.append(self.classes_[decision(rows, self.coef_[at], self.intercept_[at]).argmax(-1)])
        return np.stack(out, 1)

    def score(self, activations: Any, labels: Any) -> np.ndarray:
        """Accuracy on other samples, ``[block]``."""
        return (self.predict(activations) == np.asarray(labels).astype(str)[:, None]).mean(0)

    def baseline(self, features: Any, labels: Any, groups: Any = None) -> Baseline:
        """Accuracy of the same probe on other features ``[sample, feature]`` of the same samples."""
        from sklearn.base import clone

        curve = clone(self).fit(features, labels, groups).curve_
        return Baseline(float(curve.value[0]), float(curve.low[0]), float(curve.high[0]))


def _compute(study: Study) -> Measured:
    names = sorted({name for sample in study.samples for name in sample.concepts})
    if not names:
        raise DataError("the items name no concepts (Sample.concepts: object, activity, joint ...)")

    def fit(name: str, rows: np.ndarray, activations: Any, **settings: int) -> Curve:
        labels = [study.samples[row].concepts.get(name, "") for row in rows]
        draws: dict[str, Any] = study.draws | settings
        probe = ConceptProbe(folds=study.folds, **draws)
        return probe.fit(SelectedBlocks(activations, rows), labels, study.groups[rows], name).curve_

    everything = np.arange(len(study.samples))
    both = np.flatnonzero(joint_items(study.samples))
    main = "joint" if "joint" in names and len(both) else names[0]
    curves, refused = {}, {}
    for name in names:
        rows = both if name == "joint" and len(both) else everything
        try:
            curve = fit(name, rows, study.evidence)
            curves[name] = study.beside(
                curve,
                lambda x, name=name, rows=rows: fit(name, rows, x, permutations=1),  # type: ignore[misc]
                None if name == main else (),  # the joint one has to beat both modalities; the others describe
                None if name == main else False,
            )
        except DataError as error:  # a concept whose values never cross groups cannot be tested
            refused[name] = str(error)
    if main not in curves:
        raise DataError(f"concept {main!r} cannot be probed: {refused[main]}")
    curve = curves.pop(main)
    others = {f"concept_{name}": other for name, other in curves.items()}
    return Measured(replace(curve, meta={**curve.meta, "concept": main}), others, {"not_measured": refused})


SPEC = MeasureSpec(
    "concept_probe", "semantics", "cheap", ConceptProbe.source,
    "accuracy of multinomial probes: joint, object, activity, property", _compute, expected=ALL_BASELINES, probes=2.0,
    planted="conjunction",
)  # fmt: skip
