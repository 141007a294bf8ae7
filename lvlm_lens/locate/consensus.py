"""One role from several measures, with the disagreement shown.

Each measure has its own curve, null and role.  The consensus onset is the median over the measures that found the
role; its interval is that of the same median over bootstrap replicates (the curves share their resampled groups,
so replicate r of one belongs to replicate r of the other).  The consensus does not hide: it keeps every
measure's role, the span of their onsets, and the share of them whose interval holds the consensus.

The *range* is a change-point estimate: the ramp (low level, straight rise from block s to block e, high level)
that fits the curve best, for all s <= e at once by least squares, up to where the curve leaves its plateau; the
intervals of s and e come from the replicates.  A sharp step gives s = e; a curve that has risen before the first
block gives the first block for both.  [own; a two-change-point fit]
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError, UsageError
from ..stats.curve import Curve
from .roles import PLATEAU, Role, find_role, floor_of, onsets


@dataclass(frozen=True)
class ChangePoint:
    """Rise of one curve: block numbers of its start and end with their intervals."""

    start: int
    start_low: int
    start_high: int
    end: int
    end_low: int
    end_high: int
    explained: float
    """Share of the curve's variance over blocks that the ramp explains, in [0, 1]."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return dict(vars(self))


def _ramps(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best ramp of each row ``[curve, block]``: start, end (positions) and explained share, ``[curve]`` each."""
    count = values.shape[1]
    pairs = np.array([(s, e) for s in range(1, count) for e in range(s, count)])  # s = 0 would be no change
    at = np.arange(count)
    shape = np.clip((at[None] - pairs[:, :1] + 1) / (pairs[:, 1:] - pairs[:, :1] + 1), 0, 1)  # [pair, block]
    shape = shape - shape.mean(1, keepdims=True)
    centred = values - values.mean(1, keepdims=True)
    rise = np.maximum(centred @ shape.T, 0)  # only upward ramps
    gain = rise**2 / (shape**2).sum(1)  # [curve, pair]: reduction of the squared error
    # Of ramps that fit equally well (to rounding) the steepest, which is the first of them, is taken.
    best = (gain >= gain.max(1, keepdims=True) * (1 - 1e-9)).argmax(1)
    total = np.maximum((centred**2).sum(1), 1e-300)
    return pairs[best, 0], pairs[best, 1], gain[np.arange(len(values)), best] / total


def change_point(curve: Curve, confidence: float = 0.95) -> ChangePoint:
    """Where a curve rises: start and end of the best-fitting ramp, with intervals from the replicates.

    Raises:
        DataError: fewer than 3 blocks, or no bootstrap replicates.
    """
    if len(curve) < 3 or curve.replicates is None:
        raise DataError(f"curve {curve.name!r} needs at least 3 blocks and bootstrap replicates for a change point")
    height = curve.value - floor_of(curve)
    last = max(2, int(np.flatnonzero(height >= PLATEAU * np.nanmax(height))[-1]))
    start, end, explained = _ramps(curve.value[None, : last + 1])
    replicates = curve.replicates[np.isfinite(curve.replicates).all(1), : last + 1]
    starts, ends, _ = _ramps(replicates)
    # a curve that is at half its height in the first block has risen before it: no ramp inside says where
    floor = floor_of(curve)
    already, drawn_already = (onsets(rows, floor)["onset"] == 0 for rows in (curve.value, curve.replicates))
    start, end = np.where(already, 0, start), np.where(already, 0, end)
    drawn_already = drawn_already[np.isfinite(curve.replicates).all(1)]
    starts, ends = np.where(drawn_already, 0, starts), np.where(drawn_already, 0, ends)
    tail = (1 - confidence) / 2
    blocks = np.asarray(curve.blocks)

    def around(own: int, drawn: np.ndarray) -> tuple[int, int, int]:
        low, high = (int(np.quantile(drawn, q, method="inverted_cdf")) for q in (tail, 1 - tail))
        return int(blocks[own]), int(blocks[min(low, own)]), int(blocks[max(high, own)])

    return ChangePoint(*around(int(start[0]), starts), *around(int(end[0]), ends), explained=float(explained[0]))


NOBODY = "no asked measure of this role has a vote and reaches its targets on models whose answer is known"
"""Why a role has no consensus where none of its measures counts."""

ALONE = "one measure alone is left with a vote, {}, and one vote is no consensus; its own role says what it found"
"""Why a role has no consensus where a single measure counts: its false alarms would be the consensus's."""


@dataclass(frozen=True)
class ConsensusRole:
    """A role over several measures.

    Attributes:
        name; found: two measures or more count, and more than half of them found it.
        onset, onset_low, onset_high: block numbers (median over measures, interval from replicates), or ``None``.
        start, end: median change-point range over measures, block numbers, or ``None``.
        spread: smallest and largest onset among the measures that found it, or ``None``.
        agreement: share of the measures that found it whose onset interval holds the consensus onset.
        members: :class:`~.roles.Role` by measure; changes: :class:`ChangePoint` by measure that found it.
        excluded: measures shown but not counted.
        reason: why not found.
    """

    name: str
    found: bool
    onset: int | None = None
    onset_low: int | None = None
    onset_high: int | None = None
    start: int | None = None
    end: int | None = None
    spread: tuple[int, int] | None = None
    agreement: float | None = None
    members: Mapping[str, Role] = field(default_factory=dict)
    changes: Mapping[str, ChangePoint] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        counted = [name for name in self.members if name not in self.excluded]
        seen = [name for name in counted if self.members[name].found]
        if not self.found:
            return f"{self.name} {'not found' if len(counted) > 1 else 'has no consensus'}: {self.reason}"
        assert self.spread is not None
        return (
            f"{self.name} from block {self.onset} [{self.onset_low}, {self.onset_high}], "
            f"rising {self.start}-{self.end}; {len(seen)} of {len(counted)} measures, "
            f"their onsets span {self.spread[0]}-{self.spread[1]}"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        data = {k: v for k, v in vars(self).items() if k not in ("members", "changes")}
        data |= {"spread": None if self.spread is None else list(self.spread), "excluded": list(self.excluded)}
        data["members"] = {name: role.to_dict() for name, role in self.members.items()}
        data["changes"] = {name: change.to_dict() for name, change in self.changes.items()}
        return data


def votes_text(found: Mapping[str, Any]) -> str:
    """How many measures agree, from :meth:`ConsensusRole.to_dict`: one sentence for every table and page."""
    counted = [name for name in found["members"] if name not in found["excluded"]]
    seen = sum(bool(found["members"][name]["found"]) for name in counted)
    if len(counted) < 2:
        return f"has no consensus: {ALONE.format(counted[0]) if counted else NOBODY}"
    return f"found by {seen} of {len(counted)} counted measures"


def consensus_role(
    name: str,
    curves: Mapping[str, Curve],
    expected: tuple[str, ...] | None = None,
    excluded: Collection[str] = (),
) -> ConsensusRole:
    """Consensus of several measures of one role.

    Args:
        name: of the role.
        curves: by measure, on the same blocks.
        expected: baselines each is expected to have (:func:`~.roles.find_role`).
        excluded: measures that are shown and not counted, e.g. those that fail on ground truth.
    """
    if not curves:
        raise UsageError("no curves given for the consensus")
    if len({curve.blocks for curve in curves.values()}) > 1:
        raise UsageError("the curves of a consensus need the same blocks")
    members = {key: find_role(name, curve, expected) for key, curve in curves.items()}
    counted = [key for key in members if key not in excluded]
    seen = [key for key in counted if members[key].found]
    changes = {key: change_point(curves[key]) for key in members if members[key].found and len(curves[key]) >= 3}
    plain: dict[str, Any] = {"members": members, "changes": changes, "excluded": tuple(excluded)}
    if len(counted) < 2:
        return ConsensusRole(name, False, reason=ALONE.format(counted[0]) if counted else NOBODY, **plain)
    if 2 * len(seen) <= len(counted):
        missing = [f"{key} ({members[key].reason})" for key in counted if key not in seen]
        return ConsensusRole(name, False, reason=f"found by {len(seen)} of {len(counted)} measures; not by "
                             + ", ".join(missing), **plain)  # fmt: skip
    blocks = np.asarray(next(iter(curves.values())).blocks)
    drawn = [onsets(curves[key].replicates, floor_of(curves[key]))["onset"] for key in seen]
    size = min(len(row) for row in drawn)
    together = _lower_median(np.stack([row[:size] for row in drawn]))
    own = [int(members[key].onset) for key in seen]  # type: ignore[arg-type]
    onset = int(_lower_median(np.array(own, dtype=np.float64)[:, None])[0])
    together = together[np.isfinite(together)]
    low, high = (int(blocks[int(np.quantile(together, q, method="inverted_cdf"))]) for q in (0.025, 0.975))
    inside = [members[key].onset_low <= onset <= members[key].onset_high for key in seen]  # type: ignore[operator]
    ramps = np.array([(changes[key].start, changes[key].end) for key in seen if key in changes], dtype=np.float64)
    start, end = (int(x) for x in _lower_median(ramps)) if len(ramps) else (None, None)
    return ConsensusRole(
        name, True, onset, min(low, onset), max(high, onset), start, end, (min(own), max(own)),
        float(np.mean(inside)), **plain,
    )  # fmt: skip


def _lower_median(values: np.ndarray) -> np.ndarray:
    """Median over the first axis that is one of the values (the lower of the middle two), NaN left out."""
    if np.isfinite(values).all():
        return np.sort(values, 0)[(len(values) - 1) // 2]
    return np.nanquantile(values, 0.5, axis=0, method="inverted_cdf")
