"""What SASA gains: every pair of blocks, every control, every training size, against the same probe without it.

All comparisons here are paired and speak of the probes as fitted: two probes learn from the same training samples,
each with its C chosen there (:mod:`.tuned`), and are scored on the same test samples.  Intervals resample test groups;
tests swap the two scores of whole groups (:mod:`lvlm_lens.stats.paired_auroc`), adjusted over a map or a table by
step-down max-T.  What another training sample would have given is the question of :mod:`.contest`, and the verdict's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data import Sample
from ..data.groups import groups_of
from ..data.limits import limited_rows
from ..errors import DataError
from ..progress import each
from ..stats.auroc import auroc, weighted_auroc
from ..stats.groups import paired_bootstrap
from ..stats.maxt import attainable, max_t
from ..stats.paired_auroc import paired_auroc_parts
from ..stats.resampling import Resampling, interval
from .extraction import Extracted
from .projection import CONTROLS, Cell
from .tuned import coordinates, inner_folds, tuned_scores

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
        seed: of the inner folds by which probes choose their C.
    """

    train: list[Sample]
    test: list[Sample]
    y_train: np.ndarray
    y_test: np.ndarray
    weights: np.ndarray
    seed: int = 0

    @property
    def labels(self) -> np.ndarray:
        """Labels of :attr:`samples`."""
        return np.concatenate([self.y_train, self.y_test])

    @property
    def groups(self) -> np.ndarray:
        """Groups of :attr:`samples`."""
        return groups_of(self.samples)

    @property
    def samples(self) -> list[Sample]:
        """Training samples, then test samples."""
        return [*self.train, *self.test]

    def parts(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of :attr:`samples` as (training, test)."""
        return rows[: len(self.train)], rows[len(self.train) :]


def make_split(train: list[Sample], test: list[Sample], replicates: int, seed: int) -> Split:
    """A :class:`Split`; both classes must stand in both parts, and no group in both."""
    labels = [np.array([int(s.harmful or 0) for s in part]) for part in (train, test)]
    for name, y in zip(("training", "test"), labels, strict=True):
        if len(np.unique(y)) < 2:
            raise DataError(f"the {name} part holds {len(y)} sample(s) of one class; both classes are needed")
    both = set(groups_of(train)) & set(groups_of(test))
    if both:
        raise DataError(f"{len(both)} group(s) stand in training and test, e.g. {sorted(both)[:2]}; they would leak")
    weights = Resampling(groups_of(test), replicates, seed).weights()
    return Split(train, test, labels[0], labels[1], weights, seed)


def test_scores(split: Split, rows: np.ndarray, chosen: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """Log-odds on the test part of the tuned probe fitted on the training part, ``[test sample]``; its inner AUROC.

    Args:
        split: training and test.
        rows: features of :attr:`Split.samples`.
        chosen: indices of the training samples to use; default all.
    """
    train = np.zeros(len(rows), dtype=bool)
    train[np.arange(len(split.train)) if chosen is None else chosen] = True
    fold = inner_folds(split.labels, split.groups, train, split.seed)
    scores, inner, _ = tuned_scores(coordinates(rows), split.labels, train[None], [fold])
    return scores[0, len(split.train) :], float(inner[0])


def with_interval(split: Split, scores: np.ndarray) -> dict[str, float]:
    """AUROC on the test part with its interval."""
    low, high = interval(weighted_auroc(scores, split.y_test, split.weights)[:, 0])
    return {"auroc": float(auroc(scores, split.y_test)), "low": float(low), "high": float(high)}


def paired_gain(split: Split, scores: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """AUROC of ``scores`` minus that of ``reference`` on the same test samples, with interval and p-value."""
    found = max_t(paired_auroc_parts(scores, reference, split.y_test), groups_of(split.test), seed=split.seed)
    return {**_gain(split, scores, reference), "p_value": float(found.p[0])}


def _gain(split: Split, scores: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    ours, theirs = (weighted_auroc(s, split.y_test, split.weights)[:, 0] for s in (scores, reference))
    found = paired_bootstrap(ours, theirs)
    gain = float(auroc(scores, split.y_test) - auroc(reference, split.y_test))
    return {"gain": gain, "low": float(found["low"]), "high": float(found["high"])}


def _tested_together(split: Split, scores: Sequence[np.ndarray], reference: np.ndarray) -> list[dict[str, float]]:
    """Gains of many scores over one reference, tested as one grid."""
    parts = paired_auroc_parts(np.stack(scores), reference, split.y_test)
    found = max_t(parts, groups_of(split.test), seed=split.seed)
    return [
        {**_gain(split, own, reference), "p_value": float(p), "p_adjusted": float(adjusted)}
        for own, p, adjusted in zip(scores, found.p, found.adjusted, strict=True)
    ]


def gain_map(split: Split, made: Extracted, cells: Sequence[Cell], reference: np.ndarray) -> dict[str, Any]:
    """The s x f map: AUROC, gain over ``reference`` with interval, p-value alone and adjusted over the map.

    ``cv_auroc`` is cross-validated on the training part only: what blocks may be chosen by.
    """
    scored = [test_scores(split, made.cells[cell]) for cell in each(cells)]
    gains = _tested_together(split, [scores for scores, _ in scored], reference)
    rows = [
        {
            "safety": cell.safety,
            "fused": cell.fused,
            "cv_auroc": inner,
            "auroc": float(auroc(scores, split.y_test)),
            **gain,
            "negative_share": made.negative[cell] / max(made.tokens[cell], 1),
        }
        for cell, (scores, inner), gain in zip(cells, scored, gains, strict=True)
    ]
    return {
        "blocks": sorted({b for c in cells for b in (c.safety, c.fused)}),
        "cells": rows,
        "attainable": attainable(groups_of(split.test), len(cells)),
    }


def variant_cells(cell: Cell, has_images: bool, controls_only: bool = False) -> dict[str, Cell]:
    """Every control, and unless ``controls_only`` every variant, of a cell that these prompts allow."""
    made = {}
    for name, (_, changes) in VARIANTS.items():
        if (name == "image" and not has_images) or (controls_only and name not in CONTROL_NAMES):
            continue
        made[name] = replace(cell, fused=cell.safety) if name == "same_block" else replace(cell, **changes)
    return {name: other for name, other in made.items() if other != cell}


def compare(
    split: Split, features: Mapping[str, np.ndarray], meanings: Mapping[str, str], reference: str, main: str
) -> list[dict[str, Any]]:
    """A row a set of features: AUROC, gain over the reference, and what SASA has over it.

    Args:
        split: training and test.
        features: ``[train + test sample, feature]`` by name.
        meanings: one line each.
        reference: the name of the probe without projection.
        main: the name of SASA.
    """
    scores = {name: test_scores(split, features[name])[0] for name in each(list(features))}
    others = [name for name in scores if name != reference]
    gains = dict(zip(others, _tested_together(split, [scores[n] for n in others], scores[reference]), strict=True))
    table = []
    for name, values in scores.items():
        row: dict[str, Any] = {"name": name, "meaning": meanings.get(name, ""), **with_interval(split, values)}
        if name != reference:
            row["over_reference"] = gains[name]
        if name not in (main, reference):
            row["sasa_over_this"] = paired_gain(split, scores[main], values)
        table.append(row)
    return table


def label_efficiency(
    split: Split, sasa: np.ndarray, plain: np.ndarray, sizes: Sequence[int], seeds: int, seed: int
) -> list[dict[str, Any]]:
    """AUROC of both probes by number of training samples (whole groups), mean over ``seeds`` subsets.

    In each replicate of the test groups the AUROCs are averaged over the subsets before the difference is taken.
    """
    rows = []
    sizes = sorted({size for size in sizes if size <= len(split.train)} | {len(split.train)})
    for size in each(sizes, lambda size: f"{size} samples"):
        draws: dict[str, list[np.ndarray]] = {"sasa": [], "plain": []}
        values: dict[str, list[float]] = {"sasa": [], "plain": []}
        for number in range(seeds if size < len(split.train) else 1):
            chosen = np.array(limited_rows(split.train, size, seed + number))
            if len(np.unique(split.y_train[chosen])) < 2:
                continue  # counted: "seeds" below says how many subsets held both classes
            for name, features in (("sasa", sasa), ("plain", plain)):
                scores, _ = test_scores(split, features, chosen)
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
