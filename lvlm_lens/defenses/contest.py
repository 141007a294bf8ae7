"""SASA and its rivals on equal terms: everything chosen and fitted anew in each of many splits.

Each method is a set of candidate features of the same items.  In every random split (repeated cross-validation by
group) each method chooses one of its candidates and the strength of regularisation by the same inner cross-validation
on the training part, is fitted there, and scored on the rest.  So a method gains nothing from features of another
scale, pays for having many candidates to choose from, and the interval knows the chance of the training sample
(:mod:`lvlm_lens.stats.equivalence`).  A verdict needs the difference to be shown, or to be shown smaller than
:data:`MARGIN`, which was fixed before any of it was measured.  [own]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..stats.auroc import auroc
from ..stats.equivalence import corrected_contest
from ..stats.resampling import group_folds
from .tuned import inner_folds, tuned_scores

MARGIN = 0.02
"""Differences of AUROC smaller than this do not matter."""
FOLDS, REPEATS = 5, 3


@dataclass(frozen=True)
class Splits:
    """Random splits of the same items.

    Attributes:
        labels, groups: ``[item]``; trains: bool ``[split, item]``; folds: inner folds of each.
        test_to_train: groups of a test part over groups of a training part, mean over splits.
    """

    labels: np.ndarray
    groups: np.ndarray
    trains: np.ndarray
    folds: tuple[np.ndarray | None, ...]
    test_to_train: float


def repeated_splits(labels: np.ndarray, groups: np.ndarray, seed: int, repeats: int = REPEATS) -> Splits:
    """:data:`FOLDS`-fold cross-validation by group, ``repeats`` times.

    Raises:
        DataError: too few groups of a class.
    """
    trains = []
    for repeat in range(repeats):
        fold = group_folds(labels, groups, FOLDS, seed + repeat)
        trains += [fold != number for number in range(FOLDS)]
    folds = tuple(inner_folds(labels, groups, train, seed) for train in trains)
    ratio = np.mean([len(np.unique(groups[~train])) / len(np.unique(groups[train])) for train in trains])
    return Splits(labels, groups, np.stack(trains), folds, float(ratio))


@dataclass(frozen=True)
class Entry:
    """One method in all splits: its AUROC ``[split]``, and the candidate chosen in each."""

    auroc: np.ndarray
    chosen: tuple[Hashable, ...]


def enter(candidates: Iterable[tuple[Hashable, np.ndarray]], splits: Splits) -> Entry:
    """Let a method choose, fit and score in every split.

    Args:
        candidates: names and :func:`~lvlm_lens.defenses.tuned.coordinates`; of equals the first is chosen.
        splits: the splits.
    """
    count = len(splits.trains)
    best, value, chosen = np.full(count, -np.inf), np.empty(count), [None] * count  # type: list[Any]  # type: ignore[misc]
    for name, rows in candidates:
        scores, inner, _ = tuned_scores(rows, splits.labels, splits.trains, splits.folds)
        for split in np.flatnonzero(np.nan_to_num(inner, nan=0.0) > best):
            left = ~splits.trains[split]
            best[split], chosen[split] = inner[split], name  # type: ignore[call-overload]
            value[split] = auroc(scores[split, left], splits.labels[left])
    return Entry(value, tuple(chosen))


def decide(entries: Mapping[str, Entry], main: str, splits: Splits, margin: float = MARGIN) -> list[dict[str, Any]]:
    """A row a rival of ``main``: the difference of AUROC, its interval, both tests and the verdict."""
    rows = []
    for name, rival in entries.items():
        if name == main:
            continue
        found = corrected_contest(entries[main].auroc - rival.auroc, splits.test_to_train, margin)
        theirs, ours = (Counter(entry.chosen).most_common(1)[0] for entry in (rival, entries[main]))
        rows.append(
            {
                "rival": name,
                "auroc": float(entries[main].auroc.mean()),
                "rival_auroc": float(rival.auroc.mean()),
                **asdict(found),
                "rival_chose": str(theirs[0]),
                "rival_chose_in": theirs[1],
                f"{main}_chose": str(ours[0]),
                f"{main}_chose_in": ours[1],
            }
        )
    return rows
