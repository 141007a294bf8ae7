"""Every measure with an onset, on one constructed model: its curve and the block where it should begin.

The three curves and the order test come from :func:`~lvlm_lens.locate.locating.locate_roles`, as a user would call
it.  The others are fitted on the same evidence, and beside each stand the same measure on the mean input embedding
and on the random-weight twin, wherever it can be asked of them.  Names are those of the measures elsewhere in the
toolkit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..measures.angular_gap import AngularGap
from ..measures.concept_probe import ConceptProbe
from ..measures.difference_consistency import DifferenceConsistency
from ..measures.evidence import Evidence
from ..measures.items import group_names, harm_labels
from ..measures.label_cka import LabelCKA
from ..measures.mean_difference import MeanDifference
from ..measures.measure import Measure
from ..measures.refusal_lens import RefusalLens
from ..measures.trajectory import Trajectory
from ..measures.unembedding import Unembedding
from ..stats.curve import Curve
from .plan import Plan


@dataclass(frozen=True)
class Readings:
    """A constructed model's evidence and its twin's, with both heads."""

    plan: Plan
    evidence: Evidence
    twin: Evidence
    head: Unembedding
    twin_head: Unembedding

    def first(self, pairs: int) -> Readings:
        """The same for the first pairs."""
        rows = np.arange(2 * pairs)
        return Readings(self.plan, self.evidence.rows(rows), self.twin.rows(rows), self.head, self.twin_head)


def truths(plan: Plan) -> dict[str, int | None]:
    """The true onset by measure, ``None`` where the model does not have what it measures."""
    harm = ("linear_probe", "mean_difference", "difference_consistency", "angular_gap", "label_cka")
    lens = ("lens_log_odds", "refusal_lens", "refusal_lens_centred", "trajectory")
    return {
        **dict.fromkeys(harm, plan.perceive),
        **dict.fromkeys(("joint_probe", "concept_probe"), plan.fuse),
        **dict.fromkeys(lens, plan.express),
    }


def other_curves(readings: Readings, replicates: int, permutations: int, seed: int) -> Iterator[tuple[str, Curve]]:
    """``(name, curve)`` of every measure beside those of ``locate_roles``.

    Args:
        readings: of one model, of as many pairs as are to be used.
        replicates, permutations: of interval and null; the angular gap, whose replicates are dear, takes at most 200.
        seed: of both.
    """
    evidence, twin = readings.evidence, readings.twin
    labels, groups = harm_labels(evidence.samples), group_names(evidence.samples)
    draws: dict[str, Any] = {"replicates": replicates, "permutations": permutations, "random_state": seed}
    few = draws | {"replicates": min(replicates, 200)}

    def beside(make: Callable[[], Measure], rows: np.ndarray | None = None, own: Any = None) -> Curve:
        chosen = np.arange(len(evidence)) if rows is None else rows
        wanted = labels if own is None else own

        def fit(values: np.ndarray) -> Curve:
            return make().fit(values[chosen], wanted[chosen], groups[chosen]).curve_  # type: ignore[attr-defined]

        curve, embedded = fit(evidence.resid), fit(evidence.embedding[:, None])
        value, low, high = (float(getattr(embedded, key)[0]) for key in ("value", "low", "high"))
        return curve.with_baseline("input_embedding", value, low, high).with_baseline("random_twin", fit(twin.resid))

    yield "mean_difference", beside(lambda: MeanDifference(**draws))
    yield "difference_consistency", beside(lambda: DifferenceConsistency(**draws))
    yield "angular_gap", beside(lambda: AngularGap(**few))
    yield "label_cka", beside(lambda: LabelCKA(**few))
    meaning = np.array([sample.concepts["conjunction"] for sample in evidence.samples])
    differ = np.array([len(set(meaning[groups == group])) > 1 for group in groups])  # pairs that differ in it
    yield "concept_probe", beside(lambda: ConceptProbe(**draws), np.flatnonzero(differ), meaning)
    for name, centred in (("refusal_lens", False), ("refusal_lens_centred", True)):
        mine, other = (
            RefusalLens(head, evidence.refusal_ids, centred, **draws).fit(source.resid, labels, groups).curve_
            for head, source in ((readings.head, evidence), (readings.twin_head, twin))
        )
        yield name, mine.with_baseline("random_twin", other)
    decided = Trajectory(readings.head, evidence.refusal_ids, **draws).fit(evidence.resid, groups=groups)
    yield "trajectory", decided.curve_
