"""Which samples belong together: the one rule for groups.

Samples of one group share a picture, a scene or a question.  They never stand on both sides of a split, are drawn
together by a bootstrap, and are kept or left out together by a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from .sample import Sample


def groups_of(samples: Sequence[Sample]) -> np.ndarray:
    """Group of each sample, ``[sample]`` of text; a sample without one is a group of its own."""
    return np.array([sample.group or f"id:{sample.id}" for sample in samples], dtype=np.str_)


def with_groups(samples: Iterable[Sample]) -> list[Sample]:
    """Fill in the groups that are blank: samples joined by a counterfactual or one image file share one.

    Shared words do not join: benchmarks such as FigStep put one question to every picture.
    """
    kept = list(samples)
    parent = {sample.id: sample.id for sample in kept}

    def top(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first_with: dict[object, str] = {}
    for sample in kept:
        for picture in sample.images:
            if getattr(picture, "path", None):
                parent[top(sample.id)] = top(first_with.setdefault(picture, sample.id))
        if sample.counterfactual in parent:
            parent[top(sample.id)] = top(sample.counterfactual)
    return [sample if sample.group else replace(sample, group=top(sample.id)) for sample in kept]
