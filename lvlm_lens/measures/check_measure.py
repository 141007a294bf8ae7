"""One battery for every estimator, the contract, the null, the interval, the seed; one for what is registered of it.

``check_measure(factory, activations, labels, groups)`` raises :class:`AssertionError` with the name of the check that a
measure fails.  ``factory`` makes a fresh measure (``functools.partial`` of the class with what it needs); the data
must hold a signal in the later blocks that the measure is able to see.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import clone

from ..errors import LensError
from ..stats.curve import Curve
from .blocks import ArrayBlocks
from .spec import COSTS, PLANTED, ROLE_NAMES, Measured, MeasureSpec, Size, measure
from .study import Study


class _OneAtATime:
    """Blocks that hand out a fresh copy of one block and count the readings."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.blocks = list(range(array.shape[1]))
        self.read: list[int] = []

    def block(self, block: int) -> np.ndarray:
        self.read.append(block)
        return self.array[:, block].copy()


def _must(condition: Any, check: str, detail: str = "") -> None:
    if not condition:
        raise AssertionError(f"{check}{': ' if detail else ''}{detail}")


def check_measure(
    factory: Callable[[], Any],
    activations: np.ndarray,
    labels: Any,
    groups: Any = None,
    signal_from: int | None = None,
    labelled: bool = True,
) -> list[str]:
    """Run the battery.

    Args:
        factory: makes a fresh, unfitted measure.
        activations: ``[sample, block, d]``.
        labels, groups: as for the measure's ``fit``.
        signal_from: first block that carries the signal; every block from it on must beat the null, and no
            block before may have its interval's lower bound above the null's upper bound.  ``None``: not checked.
        labelled: whether the measure depends on the labels (then it must refuse a single class, if the labels
            are two kinds) and has a null.

    Returns:
        Names of the checks that were run.
    """
    done = []
    measure = factory()
    params = measure.get_params()
    _must(all(hasattr(measure, name) for name in params), "__init__ stores every parameter")
    _must(not [name for name in vars(measure) if name.endswith("_")], "nothing is learned before fit")
    done.append("parameters")

    reader = _OneAtATime(activations)
    fitted = measure.fit(reader, labels, groups)
    _must(fitted is measure, "fit returns self")
    curve = measure.curve_
    _must(isinstance(curve, Curve), "curve_ is a Curve")
    _must(list(curve.blocks) == reader.blocks == list(measure.blocks_), "blocks_", f"{curve.blocks}")
    _must(np.isfinite(curve.value).all(), "values are finite", f"{curve.value}")
    _must((curve.low <= curve.high).all(), "low <= high")
    _must((curve.low < curve.high).any(), "there is an interval")
    _must(curve.replicates is not None, "replicates are kept")
    _must(curve.unit and curve.name and curve.meta.get("source"), "name, unit and source")
    _must(set(reader.read) == set(reader.blocks), "every block is read")
    done.append("curve")

    if labelled:
        _must(curve.null is not None and curve.null_draws is not None, "there is a null, with its draws")
        assert curve.null is not None and curve.null_mean is not None
        _must((curve.null >= curve.null_mean - 1e-12).all(), "the null's bound is above its mean")
        done.append("null")
    if signal_from is not None:
        assert curve.null is not None
        late, early = slice(signal_from, None), slice(0, signal_from)
        _must((curve.low[late] > curve.null[late]).all(), "signal is seen", f"{curve.low[late]} {curve.null[late]}")
        _must((curve.low[early] <= curve.null[early]).all(), "no signal, no finding", f"{curve.low[early]}")
        done.append("signal")

    again = clone(factory()).fit(activations, labels, groups).curve_
    _must(np.array_equal(again.value, curve.value) and np.array_equal(again.low, curve.low), "same seed, same numbers")
    numbered = factory().fit(ArrayBlocks(activations, [3 + 2 * b for b in reader.blocks]), labels, groups).curve_
    _must(numbered.blocks == tuple(3 + 2 * b for b in reader.blocks), "block numbers are those of the source")
    _must(np.array_equal(numbered.value, curve.value), "block numbers do not change values")
    done.append("determinism")

    paired = "pairs" in inspect.signature(measure.score).parameters
    values = np.asarray(measure.score(activations, labels, *([groups] if paired else [])))
    _must(values.shape == (len(curve),) and np.isfinite(values).all(), "score is one number a block", f"{values}")
    done.append("score")

    text = json.dumps(curve.to_dict(), allow_nan=False)
    _must(Curve.from_dict(json.loads(text)).name == curve.name, "the curve survives JSON")
    done.append("json")

    broken = activations.copy()
    broken[1, -1, 0] = np.nan
    _refuses(lambda: factory().fit(broken, labels, groups), "NaN is refused")
    if labelled:
        _refuses(lambda: factory().fit(activations, labels[:-1], None if groups is None else groups[:-1]), "counts")
        if len(np.unique(labels)) == 2:
            _undefined(lambda: factory().fit(activations, np.zeros(len(labels), dtype=int), groups))
    done.append("errors")
    return done


def check_spec(spec: MeasureSpec, study: Study) -> Measured:
    """What is registered of a measure, and what it gives on a real study: the check of one more measure of a model.

    Args:
        spec: the measure's own description.
        study: of a small model, with items of both kinds, matched pairs, captions, concepts and references.

    Returns:
        What was measured.
    """
    _must(spec.role in (*ROLE_NAMES, None), "role", f"{spec.role!r}")
    _must(spec.cost in COSTS, "cost", f"{spec.cost!r}; one of {', '.join(COSTS)}")
    _must(spec.source and spec.what, "source and what are given")
    _must(bool(spec.planted) != bool(spec.untested), "planted, or untested with the reason")
    _must(not spec.planted or spec.planted in PLANTED, "planted", f"{spec.planted!r}; one of {', '.join(PLANTED)}")
    _must(spec.role is not None or not spec.votes, "what speaks for no role has no vote")
    rows = [spec.rows(Size(items, 8, 4)) for items in (0, 20, 40)]
    _must(rows == sorted(rows) and rows[0] >= 0, "rows grow with the items", f"{rows}")
    _must((rows[1] > 0) == (spec.cost in ("forward", "edits")) or spec.cost == "cheap", "rows belong to the cost")

    found = measure(spec, study)  # holds blocks, interval, null and unit
    for name, curve in {spec.name: found.curve, **found.others}.items():
        _must(curve.name == name, "curves are named", name)
        _must(
            (curve.low <= curve.value).all() and (curve.value <= curve.high).all(), "the interval holds the value", name
        )
    _must(set(spec.variants) <= set(found.others), "variants are among the other curves", f"{spec.variants}")
    editing = spec.cost == "edits"  # no twin beside those: it would cost as much again, and the role says so
    beside = {key for key in spec.expected if not (editing and key == "random_twin")}
    _must(beside <= set(found.curve.baselines), "expected baselines", f"{beside - set(found.curve.baselines)}")
    json.dumps(found.tables, allow_nan=True)
    if not editing:
        again = measure(spec, study)
        _must(np.array_equal(again.curve.value, found.curve.value), "same seed, same numbers")
    return found


def _refuses(action: Callable[[], Any], check: str) -> None:
    try:
        action()
    except LensError as error:
        _must(str(error), check, "the error has no message")
        return
    raise AssertionError(f"{check}: nothing was raised")


def _undefined(action: Callable[[], Any]) -> None:
    """One class only: an error, or a curve that says in its meta why it is undefined."""
    try:
        curve = action().curve_
    except LensError as error:
        _must(str(error), "one class", "the error has no message")
        return
    _must(np.isnan(curve.value).all() and curve.meta.get("undefined"), "one class gives a number", f"{curve.value}")
