"""Pairwise angular gap (Safety Layers, arXiv 2408.17003, layer numbers and pair sampling read in the authors' code).

``c(p, q)`` is the cosine of two prompts' vectors in one block.  Normal prompts among themselves and normal
against malicious prompts: ``gap = |arccos(mean c_NN) - arccos(mean c_NM)|``.  The angle of the mean cosine, which is
the published quantity, is not the mean of the angles; both are kept, named ``angle_of_mean`` and
``mean_of_angles``.

The paper draws 500 random pairs of each kind.  Here the mean runs over *all* pairs of distinct items (samples of one
group are never paired), which is what the random draw estimates; ``pairs=500`` draws as published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError, UsageError
from ..stats.resampling import permute_labels
from .blocks import iterate
from .measure import Measure, two_kinds, unit_rows
from .spec import ALL_BASELINES, Measured, MeasureSpec
from .study import Study

KINDS = ("angle_of_mean", "mean_of_angles")


@dataclass(eq=False, repr=False)
class AngularGap(Measure):
    """Gap between normal-normal and normal-malicious angles, radians, one value per block.

    Args:
        kind: ``angle_of_mean`` (published) or ``mean_of_angles``.
        pairs: ``None``: all pairs of different groups; a number: that many random pairs of each kind for
            the value (interval and null always use all pairs).
        replicates, permutations, confidence, random_state: see :class:`~.measure.Measure`.

    Attributes:
        curve_: of the chosen kind; curves_: both kinds by name.
        normal_angle_, malicious_angle_ ``[block]``: the two angles of the chosen kind, radians.
        range_: ``(start, end)``, from where the gap first exceeds its null to where it first stops growing
            (the paper's first range), or ``None``.
    """

    name = "angular_gap"
    unit = "radians"
    source = "arXiv 2408.17003 [code]"

    kind: str = "angle_of_mean"
    pairs: int | None = None

    def fit(self, activations: Any, labels: Any, groups: Any = None) -> AngularGap:
        """``activations [sample, block, d]``; ``labels``: larger value = malicious; ``groups``: never paired inside."""
        if self.kind not in KINDS:
            raise UsageError(f"kind is {self.kind!r}; write one of {', '.join(KINDS)}")
        malicious = two_kinds(labels)
        n = len(malicious)
        index = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
        distinct = (index[:, None] != index[None]).astype(np.float64)
        if not (distinct[~malicious][:, ~malicious].any() and distinct[~malicious][:, malicious].any()):
            raise DataError("no two samples of different groups to pair; give more groups")
        weights = self._weights(groups, n)
        shuffled = permute_labels(malicious, groups, self.permutations, self.random_state + 1)
        rng = np.random.default_rng(self.random_state)
        out: dict[str, list[Any]] = {f"{kind} {what}": [] for kind in KINDS for what in ("value", "replicates", "null")}
        normal, mixed = [], []
        for _, rows in iterate(activations, n):
            cosine = np.clip(unit_rows(rows) @ unit_rows(rows).T, -1, 1)
            for kind in KINDS:
                quantity = cosine if kind == "angle_of_mean" else np.arccos(cosine)
                angles = _angles(quantity * distinct, distinct, malicious[None], np.ones((1, n)), kind)
                if self.pairs is not None:
                    angles = _sampled(quantity, distinct, malicious, self.pairs, rng, kind)
                if kind == self.kind:
                    normal.append(angles[0][0])
                    mixed.append(angles[1][0])
                out[f"{kind} value"].append(np.abs(angles[0] - angles[1])[0])
                drawn = _angles(quantity * distinct, distinct, malicious[None], weights, kind)
                out[f"{kind} replicates"].append(np.abs(drawn[0] - drawn[1]))
                drawn = _angles(quantity * distinct, distinct, shuffled, np.ones((1, n)), kind)
                out[f"{kind} null"].append(np.abs(drawn[0] - drawn[1]))
        self.curves_ = {
            kind: self._keep(
                activations, out[f"{kind} value"], out[f"{kind} replicates"], out[f"{kind} null"], n,
                name=f"angular gap, {kind.replace('_', ' ')}",
            )
            for kind in KINDS
        }  # fmt: skip
        self.curve_ = self.curves_[self.kind]
        self.normal_angle_, self.malicious_angle_ = np.array(normal), np.array(mixed)
        self.range_ = self._first_range()
        return self

    def _first_range(self) -> tuple[int, int] | None:
        assert self.curve_.null is not None
        above = np.flatnonzero(self.curve_.low > self.curve_.null)
        if not len(above):
            return None
        end = start = int(above[0])
        while end + 1 < len(self.curve_) and self.curve_.value[end + 1] > self.curve_.value[end]:
            end += 1
        return self.blocks_[start], self.blocks_[end]

    def score(self, activations: Any, labels: Any) -> np.ndarray:
        """The gap on other samples, ``[block]``, radians."""
        malicious = two_kinds(labels)
        distinct = 1.0 - np.eye(len(malicious))
        out = []
        for _, rows in iterate(activations, len(malicious)):
            cosine = np.clip(unit_rows(rows) @ unit_rows(rows).T, -1, 1)
            quantity = cosine if self.kind == "angle_of_mean" else np.arccos(cosine)
            ones = np.ones((1, len(malicious)))
            a, b = _angles(quantity * distinct, distinct, malicious[None], ones, self.kind)
            out.append(float(np.abs(a - b)[0]))
        return np.array(out)


def _angles(
    quantity: np.ndarray, distinct: np.ndarray, malicious: np.ndarray, weights: np.ndarray, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    """Normal-normal and normal-malicious angle for each row of weights (or of labels), ``[draw]`` each."""
    w_normal, w_malicious = weights * ~malicious, weights * malicious
    sums, counts = w_normal @ quantity, w_normal @ distinct  # [draw, sample]
    with np.errstate(invalid="ignore", divide="ignore"):
        nn = (sums * w_normal).sum(1) / (counts * w_normal).sum(1)
        nm = (sums * w_malicious).sum(1) / (counts * w_malicious).sum(1)
    return (np.arccos(nn), np.arccos(nm)) if kind == "angle_of_mean" else (nn, nm)


def _sampled(
    quantity: np.ndarray, distinct: np.ndarray, malicious: np.ndarray, pairs: int, rng: np.random.Generator, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`_angles` on random pairs, as published."""
    out = []
    for other in (~malicious, malicious):
        p, q = np.nonzero(distinct * ~malicious[:, None] * other[None])
        drawn = rng.integers(0, len(p), pairs)
        mean = quantity[p[drawn], q[drawn]].mean()
        out.append(np.array([np.arccos(mean) if kind == "angle_of_mean" else mean]))
    return out[0], out[1]


def _compute(study: Study) -> Measured:
    def fit(activations: Any, **settings: int) -> AngularGap:
        # the interval needs two n x n products a replicate and block: 300 of them fix it to a per cent
        draws: dict[str, Any] = study.draws | {"replicates": min(study.replicates, 300)} | settings
        return AngularGap(**draws).fit(activations, study.labels, study.groups)

    own = fit(study.evidence)
    curve = study.beside(own.curve_, lambda x: fit(x, permutations=1).curve_)
    tables = {"range": None if own.range_ is None else list(own.range_)}
    return Measured(curve, {"mean_of_angles": own.curves_["mean_of_angles"]}, tables)


SPEC = MeasureSpec(
    "angular_gap", "perception", "cheap", AngularGap.source,
    "angle between normal and malicious prompts above that among normal ones", _compute, default=True,
    expected=ALL_BASELINES, probes=0.5, planted="danger",
)  # fmt: skip
