"""Parts of the embedded set that stand in for more than one recipe's published files."""

from __future__ import annotations

from ..data import Dataset


def everything(mini: Dataset) -> Dataset:
    """All items; the recipe splits them itself."""
    return mini


def pictured(mini: Dataset) -> Dataset:
    """Items with a picture that were not in training."""
    return mini.filter(lambda sample: bool(sample.images) and sample.split != "train")


def unsafe_together(mini: Dataset) -> Dataset:
    """Harmless picture, harmless words, unsafe together; not in training."""
    return mini.filter(lambda sample: sample.quadrant == "SSU" and sample.split != "train")
