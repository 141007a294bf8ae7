"""What a rival claim is, and what its procedure is given and gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..depth import relative_depth
from .readings import Readings


@dataclass(frozen=True)
class Published:
    """A published range: blocks ``first`` to ``last`` (ends included) of a model of ``n_blocks`` blocks.

    ``known`` says how the numbers reached this project; the depth of a model whose block count was not read is the
    usual one of its kind, and ``known`` says so.
    """

    model: str
    first: int
    last: int
    n_blocks: int
    known: str

    @property
    def depths(self) -> tuple[float, float]:
        """Relative depth of both ends."""
        return relative_depth(self.first, self.n_blocks), relative_depth(self.last, self.n_blocks)


@dataclass(frozen=True)
class Found:
    """What a procedure returns on one set of readings.

    Attributes:
        first, last, peak: block numbers; ``None`` where the procedure finds nothing.
        values: ``[block]`` what it looks at, or ``None``.
        unit: of ``values``; n: items or pairs that went in.
        note: in words, where a reader should know more.
    """

    first: int | None
    last: int | None
    peak: int | None = None
    values: np.ndarray | None = field(default=None, repr=False)
    unit: str = ""
    n: int = 0
    note: str = ""

    @property
    def found(self) -> bool:
        """Whether there is a range."""
        return self.first is not None


NOTHING = (None, None)


@dataclass(frozen=True)
class Procedure:
    """One rival claim.

    Attributes:
        name: as written on the command line; title; source: with the honesty marks of the docstrings.
        claim: in a sentence; rule: how its range is found here, and what of that is this project's reading.
        reads: fields of :class:`~.readings.Readings` that it needs.
        truths: what the range should hold on a constructed model: its ``perceive``, ``fuse`` or ``express`` block.
        published: its numbers.
        run: readings to :class:`Found`; raises :class:`~lvlm_lens.errors.DataError` where these data cannot answer.
        pictures: ``needed``, ``claimed`` (the claim is about a model that reads pictures, the procedure runs on words
            too) or ``no``.
        placed: the blocks are set by a rule of depth and not found: only the value there says anything.
        labels: whether shuffling the labels is a null for it.
    """

    name: str
    title: str
    source: str
    claim: str
    rule: str
    reads: tuple[str, ...]
    truths: tuple[Literal["perceive", "fuse", "express"], ...]
    published: tuple[Published, ...]
    run: Callable[[Readings], Found]
    pictures: Literal["needed", "claimed", "no"] = "claimed"
    placed: bool = False
    labels: bool = True


def span(blocks: Sequence[int], chosen: Any) -> tuple[int, int] | tuple[None, None]:
    """First and last of the chosen blocks (a mask, or places in ``blocks``)."""
    at = np.asarray(chosen)
    at = np.flatnonzero(at) if at.dtype == bool else at
    return (int(blocks[int(at.min())]), int(blocks[int(at.max())])) if len(at) else NOTHING


def longest_run(mask: np.ndarray) -> np.ndarray:
    """Places of the longest run of true values (the first of equally long ones)."""
    edges = np.flatnonzero(np.diff(np.r_[0, mask.astype(int), 0]))
    if not len(edges):
        return np.zeros(0, dtype=int)
    starts, ends = edges[::2], edges[1::2]
    best = int(np.argmax(ends - starts))
    return np.arange(starts[best], ends[best])
