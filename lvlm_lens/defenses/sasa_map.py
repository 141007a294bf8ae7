"""What SASA gains: every pair of blocks, every control, every training size, against the same probe without it.

All comparisons are paired: two probes are fitted on the same training samples and scored on the same test
samples, the test groups are resampled together, and the difference of the two AUROCs is taken in each
replicate.  The intervals are therefore over test groups; probes are not refitted ([own], as is usual).
The tests of the map are adjusted together (Benjamini & Hochberg).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data import Sample
from ..errors import DataError
from ..inference import false_discovery
from ..locate.statistics import Resampling, auroc, interval, weighted_auroc
from ..stats.groups import paired_bootstrap
from .base import groups_of
from .probe import LogisticProbe
from .projection import CONTROLS, Cell
from .sasa import Extracted, cross_validated, subset

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "same_block": ("f = s: must change nothing", {}),
    "other_sample": (CONTROLS["other_sample"], {"control": "other_sample"}),
    "norm_matched": (CONTROLS["norm_matched"], {"control": "norm_matched"}),
    "random": (CONTROLS["random"], {"control": "random"}),
    "complement": (CONTROLS["complement"], {"control": "complement"}),
    "rerun": (CONTROLS["rerun"], {"control": "rerun"}),
    "onto_safety": ("the other reading: H_f projected on H_s", {"projection": "onto_safety"}),
    "residual": ("mode: H_s plus its projection", {"mode": "residual"}),
    "interpolate": ("mode: halfway to the projection", {"mode": "interpolate", "strength": 0.5}),
    "text": ("only text tokens", {"positions": "text"}),
    "image": ("only image tokens", {"positions": "image"}),
    "last": ("only the last prompt token", {"positions": "last"}),
    "no_sink": ("all tokens but the attention sink (the first)", {"sink": False}),
}
"""Controls and variants of one cell: name to (meaning, what differs)."""

CONTROL_NAMES = ("same_block", "other_sample", "norm_matched", "random", "complement", "rerun", "onto_safety")
"""The controls among them; the others are modes and positions."""


@dataclass(frozen=True)
class Split:
    """Training and test samples with labels, and the test's bootstrap weights.

    Attributes:
        train, test: samples; y_train, y_test: 1 harmful; weights: ``[replicate, test sample]``.
    """

    train: list[Sample]
    test: list[Sample]
    y_train: np.ndarray
    y_test: np.ndarray
    weights: np.ndarray

    @property
    def samples(self) -> list[Sample]:
        """Training samples, then test samples."""
        return [*self.train, *self.test]

    def parts(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of :attr:`samples` as (training, test)."""
        return rows[: len(self.train)], rows[len(self.train) :]


def make_split(train: list[Sample], test: list[Sample], replicates: int, random_state: int) -> Split:
    """A :class:`Split`; both classes must stand in both parts, and no group in both."""
    labels = [np.array([int(s.harmful or 0) for s in part]) for part in (train, test)]
    for name, y in zip(("training", "test"), labels, strict=True):
        if len(np.unique(y)) < 2:
            raise DataError(f"the {name} part holds {len(y)} sample(s) of one class; both classes are needed")
    both = set(groups_of(train)) & set(groups_of(test))
    if both:
        raise DataError(f"{len(both)} group(s) stand in training and test, e.g. {sorted(both)[:2]}; they would leak")
    weights = Resampling(groups_of(test), replicates, random_state).weights()
    return Split(train, test, labels[0], labels[1], weights)


def test_scores(split: Split, rows: np.ndarray, C: float) -> np.ndarray:
    """Log-odds on the test part of the probe fitted on the training part, ``[test sample]``."""
    train, test = split.parts(rows)
    return LogisticProbe(C).fit(train, split.y_train).decision_function(test)


def with_interval(split: Split, scores: np.ndarray) -> dict[str, float]:
    """AUROC on the test part with its interval."""
    low, high = interval(weighted_auroc(scores, split.y_test, split.weights)[:, 0])
    return {"auroc": float(auroc(scores, split.y_test)), "low": float(low), "high": float(high)}


def paired_gain(split: Split, scores: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """AUROC of ``scores`` minus that of ``reference`` on the same test samples, with interval and p-value."""
    ours, theirs = (weighted_auroc(s, split.y_test, split.weights)[:, 0] for s in (scores, reference))
    found = paired_bootstrap(ours, theirs)
    gain = float(auroc(scores, split.y_test) - auroc(reference, split.y_test))
    return {
        "gain": gain,
        "low": float(found["low"]),
        "high": float(found["high"]),
        "p_value": float(found["p_value"]),
    }


def gain_map(
    split: Split, made: Extracted, cells: Sequence[Cell], reference: np.ndarray, fold: np.ndarray, C: float
) -> dict[str, Any]:
    """The s x f map: AUROC, gain over ``reference`` with interval, p and q value of each cell.

    ``cv_auroc`` is cross-validated on the training part only: what blocks may be chosen by.
    """
    rows = []
    for cell in cells:
        features = made.cells[cell]
        scores = test_scores(split, features, C)
        rows.append(
            {
                "safety": cell.safety,
                "fused": cell.fused,
                "cv_auroc": cross_validated(split.parts(features)[0], split.y_train, fold, C),
                "auroc": float(auroc(scores, split.y_test)),
                **paired_gain(split, scores, reference),
                "negative_share": made.negative[cell] / max(made.tokens[cell], 1),
            }
        )
    q_values = false_discovery([row["p_value"] for row in rows])
    for row, q in zip(rows, q_values, strict=True):
        row["q_value"] = float(q)
    return {"blocks": sorted({b for c in cells for b in (c.safety, c.fused)}), "cells": rows}


def variant_cells(cell: Cell, has_images: bool, controls_only: bool = False) -> dict[str, Cell]:
    """Every control, and unless ``controls_only`` every variant, of a cell that these prompts allow."""
    made = {}
    for name, (_, changes) in VARIANTS.items():
        if (name == "image" and not has_images) or (controls_only and name not in CONTROL_NAMES):
            continue
        made[name] = replace(cell, fused=cell.safety) if name == "same_block" else replace(cell, **changes)
    return {name: other for name, other in made.items() if other != cell}


def compare(
    split: Split, features: Mapping[str, np.ndarray], meanings: Mapping[str, str], C: float, reference: str, main: str
) -> list[dict[str, Any]]:
    """A row a set of features: AUROC, gain over the reference, and what SASA has over it.

    Args:
        split: training and test.
        features: ``[train + test sample, feature]`` by name.
        meanings: one line each.
        C: of the probe.
        reference: the name of the probe without projection.
        main: the name of SASA.
    """
    scores = {name: test_scores(split, rows, C) for name, rows in features.items()}
    table = []
    for name, values in scores.items():
        row: dict[str, Any] = {"name": name, "meaning": meanings.get(name, ""), **with_interval(split, values)}
        if name != reference:
            row["over_reference"] = paired_gain(split, values, scores[reference])
        if name not in (main, reference):
            row["sasa_over_this"] = paired_gain(split, scores[main], values)
        table.append(row)
    tested = [row["over_reference"] for row in table if "over_reference" in row]
    for row, q in zip(tested, false_discovery([row["p_value"] for row in tested]), strict=True):
        row["q_value"] = float(q)
    return table


def label_efficiency(
    split: Split, sasa: np.ndarray, plain: np.ndarray, sizes: Sequence[int], seeds: int, C: float, random_state: int
) -> list[dict[str, Any]]:
    """AUROC of both probes by number of training samples (whole groups), mean over ``seeds`` subsets.

    In each replicate of the test groups the AUROCs are averaged over the subsets before the difference is taken.
    """
    rows = []
    sizes = sorted({size for size in sizes if size <= len(split.train)} | {len(split.train)})
    for size in sizes:
        draws: dict[str, list[np.ndarray]] = {"sasa": [], "plain": []}
        values: dict[str, list[float]] = {"sasa": [], "plain": []}
        for seed in range(seeds if size < len(split.train) else 1):
            chosen = subset(split.train, size, random_state + seed)
            y = split.y_train[chosen]
            if len(np.unique(y)) < 2:
                continue  # counted: "seeds" below says how many subsets held both classes
            for name, features in (("sasa", sasa), ("plain", plain)):
                train, test = split.parts(features)
                scores = LogisticProbe(C).fit(train[chosen], y).decision_function(test)
                draws[name].append(weighted_auroc(scores, split.y_test, split.weights)[:, 0])
                values[name].append(float(auroc(scores, split.y_test)))
        if not values["sasa"]:
            continue
        means = {name: np.mean(found, axis=0) for name, found in draws.items()}
        paired = paired_bootstrap(means["sasa"], means["plain"])
        row: dict[str, Any] = {"size": int(size), "seeds": len(values["sasa"])}
        for name in ("sasa", "plain"):
            low, high = interval(means[name])
            row[name] = {"auroc": float(np.mean(values[name])), "low": float(low), "high": float(high)}
        row["gain"] = {
            "gain": row["sasa"]["auroc"] - row["plain"]["auroc"],
            "low": float(paired["low"]),
            "high": float(paired["high"]),
            "p_value": float(paired["p_value"]),
        }
        rows.append(row)
    return rows
