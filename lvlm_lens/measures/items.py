"""What measures know of items: harmful or not, what belongs together, and which need picture and words at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..data import Sample
from ..errors import DataError


def harm_labels(samples: Sequence[Sample]) -> np.ndarray:
    """Joint labels as 1 (unsafe), 0 (safe), -1 (unknown), int64 ``[n]``."""
    return np.asarray([-1 if sample.harmful is None else sample.harmful for sample in samples], dtype=np.int64)


def group_names(samples: Sequence[Sample]) -> np.ndarray:
    """Group of each sample; a sample without one is its own group."""
    return np.asarray([sample.group or f"id:{sample.id}" for sample in samples])


def joint_items(samples: Sequence[Sample]) -> np.ndarray:
    """Items whose harm neither words nor picture tell alone, bool ``[n]``: those that semantics is measured on.

    An item with a picture counts where both its picture and its words are labelled safe, or where it stands in a
    matched pair (a harmful and a harmless item that share the words or the picture) and neither part is labelled
    unsafe.  A pair rules out one modality only; the other one is ruled out by its baseline, which has to be beaten.
    An item that has nothing but a joint label does not count: a probe over such items is the perception probe again.
    """
    by_id = {sample.id: sample for sample in samples}
    paired: set[str] = set()
    for sample in samples:
        other = by_id.get(sample.counterfactual or "")
        if other is None or {sample.harmful, other.harmful} != {0, 1}:
            continue
        if sample.text == other.text or sample.images == other.images:
            paired |= {sample.id, other.id}

    def counts(sample: Sample) -> bool:
        labels = {sample.label_image, sample.label_text}
        return bool(sample.images) and (labels == {"safe"} or (sample.id in paired and "unsafe" not in labels))

    return np.asarray([counts(sample) for sample in samples], dtype=bool)


def why_no_joint_items(samples: Sequence[Sample]) -> str:
    """What the data lack for semantics, with the columns that would make it possible."""
    if not any(sample.images for sample in samples):
        return "no item has a picture, so nothing needs picture and words together"
    if all(sample.label_image == "unknown" or sample.label_text == "unknown" for sample in samples):
        return (
            "nothing says which items need picture and words together; give a label of the picture and one of the "
            "words (columns label_image and label_text), or matched pairs (column counterfactual: the id of the item "
            "that shares the words or the picture and has the other label)"
        )
    return "in every item the picture or the words are unsafe by themselves; add items that are unsafe only together"


def check_labels(labels: np.ndarray) -> None:
    """Raise :class:`DataError` where the labels are all of one class."""
    counts = Counter(labels.tolist())
    if len(counts) < 2:
        only = {0: "safe", 1: "unsafe"}.get(next(iter(counts), -1), "unknown")
        raise DataError(
            f"all {len(labels)} labelled items are {only}; locating needs harmful and harmless items "
            "(give a label column, or add a contrast set)"
        )
