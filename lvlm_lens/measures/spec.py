"""What a measure of a *model* says of itself and what it must give back: one contract for all of them.

The estimators of this room work on arrays.  A :class:`MeasureSpec` says how one of them is computed for a model on a
data set: which states it reads, which samples it compares, what stands beside it, how many forwards it costs.  It gets
a :class:`~.study.Study` (model, evidence, labels, random twin, settings) and returns a :class:`Measured`, whose curve
is held to the contract by :func:`measure`: the blocks of the study, an interval from kept replicates, a null (or the
reason why there can be none), the source, and every baseline that can be formed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ..stats.curve import Curve

if TYPE_CHECKING:
    from .study import Study

ROLE_NAMES = ("perception", "semantics", "expression")

HEADLINES = {"perception": "linear_probe", "semantics": "joint_probe", "expression": "lens_log_odds"}
"""The measure behind each role."""

COSTS = {
    "free": "already there after locating",
    "cheap": "arithmetic on what was read",
    "forward": "up to three more forwards per item",
    "edits": "many forwards of a few items, with edits in place",
}
"""Cost classes, in rising order."""

ALL_BASELINES = ("text_only", "image_only", "input_embedding", "random_twin")
"""Baselines of a measure that is fitted on labels."""

PLANTED = {
    "danger": "the block that computes harm which one modality holds alone",
    "conjunction": "the block that computes harm of picture and words together",
    "refusal": "the block that writes the refusal token",
    "refused danger": "the block of danger, in models that also refuse it",
    "answered danger": "the block of danger, in models that never refuse; no other model is asked",
}
"""What a model with a known answer can hold for a measure to find (:mod:`lvlm_lens.selftest`)."""


@dataclass(frozen=True)
class Measured:
    """A measure of one model: its curve, curves that belong to it (variants, parts) and JSON-ready tables."""

    curve: Curve
    others: Mapping[str, Curve] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Size:
    """What the forwards of a measure depend on: labelled items, blocks of the model, heads of a block."""

    items: int
    blocks: int
    heads: int


@dataclass(frozen=True)
class LensSize:
    """What the arithmetic of a lens over the vocabulary depends on.

    Attributes:
        items: labelled items; blocks: how many were read; width: of the residual stream; vocabulary: rows of the head.
        twin: whether the random twin, which has a head of its own, is read too.
    """

    items: int
    blocks: int
    width: int
    vocabulary: int
    twin: bool


@dataclass(frozen=True)
class Products:
    """Multiply-adds of matrix products: in float32 where the model is, and in float64 on the processor."""

    single: float = 0.0
    double: float = 0.0


@dataclass(frozen=True)
class MeasureSpec:
    """How one measure is computed for a model.

    Attributes:
        name: as written on the command line.
        role: ``perception``, ``semantics``, ``expression``, or ``None`` where it describes and speaks for no role.
        cost: one of :data:`COSTS`.
        source: where the method is published, with the honesty marks of the docstrings.
        what: one line for tables.
        compute: the measure; raises a :class:`~lvlm_lens.errors.LensError` that says what is missing where
            it cannot be measured.
        default: in the default set.
        votes: counted in the consensus of its role.
        expected: baselines whose absence is printed beside its role.
        rows: rows that it puts through the whole model, beyond what the sweep has read.
        probes: its arithmetic in one block beside ``products``, in linear probes of one block without shuffled labels
            (no measure fits a probe anew for each shuffle).
        products: its matrix products as wide as the model or its vocabulary, beyond rows and probes.
        planted: one of :data:`PLANTED`, what it has to find in models whose answer is known; empty where ``untested``.
        variants: names among its other curves that are held against the same.
        untested: why such models cannot test it; empty where they do.
    """

    name: str
    role: str | None
    cost: str
    source: str
    what: str
    compute: Callable[[Study], Measured]
    default: bool = False
    votes: bool = True
    expected: tuple[str, ...] = ("random_twin",)
    rows: Callable[[Size], int] = lambda size: 0
    probes: float = 0.5
    products: Callable[[LensSize], Products] = lambda size: Products()
    planted: str = ""
    variants: tuple[str, ...] = ()
    untested: str = ""


def measure(spec: MeasureSpec, study: Study) -> Measured:
    """Compute a measure and hold its curve to the contract.

    Raises:
        LensError: it cannot be measured here; the message says what is missing.
        AssertionError: the measure breaks the contract (a mistake in its code, not in the data).
    """
    found = spec.compute(study)
    if not np.isfinite(found.curve.value).any():
        raise DataError(str(found.curve.meta.get("undefined", "the curve has no finite value")))
    curves = {spec.name: found.curve, **found.others}
    kept = {name: _held(spec, name, curve, study) for name, curve in curves.items()}
    return Measured(kept.pop(spec.name), kept, found.tables)


def _held(spec: MeasureSpec, name: str, curve: Curve, study: Study) -> Curve:
    blocks = tuple(study.evidence.blocks)
    if curve.blocks == tuple(range(len(blocks))):  # measured on a plain array: places, not yet block numbers
        curve = replace(curve, blocks=blocks)
    must = {
        "blocks": curve.blocks == blocks,
        "replicates": curve.replicates is not None,
        "null": curve.null_draws is not None or "no_null" in curve.meta,
        "unit": bool(curve.unit),
    }
    broken = [what for what, held in must.items() if not held]
    assert not broken, f"measure {spec.name}, curve {name}: contract broken in {', '.join(broken)}"
    # the percentile interval of a folded quantity (an absolute difference) can leave its own small estimate out
    low, high = np.fmin(curve.low, curve.value), np.fmax(curve.high, curve.value)
    meta = {**curve.meta, "measure": spec.name, "role": spec.role, "source": spec.source, "cost": spec.cost}
    return replace(curve, name=name, low=low, high=high, meta={**meta, "depth": study.model.n_blocks})
