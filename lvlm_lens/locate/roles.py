"""From curves to layer roles: where perception, semantics and expression begin, each with its interval.

A curve that rises in the middle is not a finding.  A role is *found* only where its best block, interval
and all, beats four things: the shuffled-label null, the unimodal baselines, the input embeddings, and the
same measure on a random-weight twin.  The best block is chosen after looking at all blocks, so its lower
bound is held against the null's best block (the quantile of the maximum over blocks of each null draw), not
against the null at that block; likewise against the best block of a baseline that has a value for every block.
A baseline that was measured on the same items is compared *replicate by replicate*: the lower bound of the paired
bootstrap of the difference must be above zero.  (Two intervals that may not overlap are a harder test than their
95 % says, because both move with the same items.)  The bootstrap does not refit, so where both are cross-validated
probes its interval is widened by ``sqrt(1 + k / (k - 1))``, the correction of Nadeau & Bengio (Machine Learning
52, 2003) for ``k`` folds whose training parts overlap; without it, two probes that read the same spurious cue
equally well differ "significantly" in a fifth of constructed models.  Without replicates the lower bound must exceed
the baseline's upper bound.  What was not given to compare with is named in ``missing`` and printed beside the role.

Where a role is found:

* *floor* of a block: the highest of null mean and baselines there: what is to be beaten;
* *peak*: the block of the largest height above the floor;
* *onset*: the first block from which the height stays above half of the peak's, up to the peak;
  ``onset_at`` is the same crossing interpolated linearly between blocks (a real number, half a block
  below a sharp step's block on average);
* *range*: from the onset to the first block that reaches 80 % of the peak's height, the stretch in
  which the quantity appears;
* *plateau*: the blocks around the peak that keep 80 % of its height.

The interval of the onset is the percentile interval of the onsets of the bootstrap replicates of
the curve, each with its own peak.  Sources: half-height onset and the four things to beat from the
project's measure definitions; floor with baselines, range and plateau levels are [own].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError, UsageError
from .curve import Curve

REQUIRED = {
    "perception": ("text_only", "image_only", "input_embedding", "random_twin"),
    "semantics": ("text_only", "image_only", "input_embedding", "random_twin"),
    "expression": ("random_twin",),
}
"""Baselines a role is expected to be compared with; those not given are named as missing."""

_WORDS = {
    "text_only": "the text-only baseline",
    "image_only": "the image-only baseline",
    "input_embedding": "the input embeddings",
    "random_twin": "the random-weight twin",
    "random_features": "random features",
}

HALF, PLATEAU = 0.5, 0.8


@dataclass(frozen=True)
class Role:
    """One role of the network's depth.

    Attributes:
        name: ``perception``, ``semantics`` or ``expression``.
        found: whether the curve beat everything it was compared with.
        reason: why not; empty where found.
        onset, onset_low, onset_high: block numbers (the interval is that of the bootstrap); ``None`` where not found.
        onset_at: the onset interpolated between blocks, a real number.
        peak: block of the largest height.
        range: ``(start, end)``, onset to the first block at 80 % of the peak's height.
        plateau: ``(start, end)``, the blocks around the peak at 80 % of its height or more.
        value, low, high: the curve at its best block.
        beaten: what it was compared with: name to ``[bound, margin]``, beaten where the margin is positive
            (:func:`comparisons`).
        missing: what it was not compared with.
        depth: number of blocks of the model, for relative depth.
        notes: e.g. how many items never showed the answer and were left out of the average.
        measurable: False where the data do not allow the question at all (``reason`` says what is lacking).
    """

    name: str
    found: bool
    reason: str = ""
    onset: int | None = None
    onset_low: int | None = None
    onset_high: int | None = None
    onset_at: float | None = None
    peak: int | None = None
    range: tuple[int, int] | None = None
    plateau: tuple[int, int] | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    beaten: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    depth: int | None = None
    notes: tuple[str, ...] = ()
    measurable: bool = True

    def __str__(self) -> str:
        if not self.found:
            text = f"{self.name} {self.absence}: {self.reason}"
        else:
            assert self.range is not None
            start, end = self.range
            blocks = str(start) if start == end else f"{start}-{end}"
            text = (
                f"{self.name} {blocks} (onset {self.onset} [{self.onset_low}, {self.onset_high}], peak {self.peak}: "
                f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}])"
            )
        if self.missing:
            text += f" (not compared with {', '.join(_WORDS.get(m, m) for m in self.missing)})"
        return text

    def __repr__(self) -> str:
        return f"<{self}>"

    @property
    def absence(self) -> str:
        """``not found``, or ``cannot be measured with these data``: an answer and a lack of one are different."""
        return "not found" if self.measurable else "cannot be measured with these data"

    @property
    def short(self) -> str:
        """``perception 3-5`` or ``perception not found``."""
        if not self.found or self.range is None:
            return f"{self.name} {self.absence}"
        start, end = self.range
        return f"{self.name} {start}" if start == end else f"{self.name} {start}-{end}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        data = {k: getattr(self, k) for k in self.__dataclass_fields__}
        data["beaten"] = {k: list(v) for k, v in self.beaten.items()}
        for key in ("range", "plateau"):
            data[key] = None if data[key] is None else list(data[key])
        data["missing"], data["notes"] = list(self.missing), list(self.notes)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Role:
        """Inverse of :meth:`to_dict`."""
        known = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        for key in ("range", "plateau"):
            if known.get(key) is not None:
                known[key] = tuple(known[key])
        known["beaten"] = {k: (float(v[0]), float(v[1])) for k, v in known.get("beaten", {}).items()}
        for key in ("missing", "notes"):
            known[key] = tuple(known.get(key, ()))
        return cls(**known)


@dataclass(frozen=True)
class LayerRoles:
    """The three roles of one model on one data set."""

    perception: Role
    semantics: Role
    expression: Role

    def __iter__(self) -> Iterator[Role]:
        return iter((self.perception, self.semantics, self.expression))

    def __getitem__(self, name: str) -> Role:
        for role in self:
            if role.name == name:
                return role
        raise UsageError(f"no role {name!r}; there are perception, semantics, expression")

    def __repr__(self) -> str:
        return ", ".join(role.short for role in self)

    def __str__(self) -> str:
        return "\n".join(str(role) for role in self)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary ``{role: ...}``."""
        return {role.name: role.to_dict() for role in self}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LayerRoles:
        """Inverse of :meth:`to_dict`."""
        missing = [k for k in ("perception", "semantics", "expression") if k not in data]
        if missing:
            raise DataError(f"not layer roles: {', '.join(missing)} missing")
        return cls(*(Role.from_dict(data[k]) for k in ("perception", "semantics", "expression")))


def floor_of(curve: Curve) -> np.ndarray:
    """What is to be beaten at each block: the highest of null mean and baseline values, ``[block]``.

    Without null and baselines it is the curve's smallest value (and the role is then not found).
    """
    rows = [] if curve.null_mean is None else [curve.null_mean]
    rows += [np.asarray(b.on(len(curve)).value) for b in curve.baselines.values()]
    if not rows:
        return np.full(len(curve), np.nanmin(curve.value))
    return np.max(rows, axis=0)


def onsets(values: Any, floor: Any = 0.0, level: float = HALF) -> dict[str, np.ndarray]:
    """Half-height onsets of many curves at once, as positions in the list of blocks.

    Args:
        values: ``[curve, block]`` or ``[block]``.
        floor: ``[block]`` or scalar, subtracted first.
        level: share of the peak's height that marks the onset.

    Returns:
        Arrays ``[curve]``: ``onset`` (first position from which the height stays at or above the level up
        to the peak), ``onset_at`` (that crossing interpolated linearly between the block before and
        the onset; -0.5 + fraction is never invented: an onset at position 0 gives 0.0), ``peak``, and
        ``full`` (first position from the onset on that reaches 80 % of the height).  All NaN where no
        height is positive.
    """
    height = np.atleast_2d(np.asarray(values, dtype=np.float64)) - floor
    height = np.where(np.isfinite(height), height, -np.inf)
    rows = np.arange(len(height))
    peak = height.argmax(1)
    top = height[rows, peak]
    target = level * top
    positions = np.arange(height.shape[1])
    low_before_peak = (height < target[:, None]) & (positions < peak[:, None])
    last_low = np.where(low_before_peak.any(1), height.shape[1] - 1 - low_before_peak[:, ::-1].argmax(1), -1)
    onset = last_low + 1
    before = height[rows, np.maximum(last_low, 0)]
    before = np.where(np.isfinite(before), before, 0.0)
    step = height[rows, onset] - before
    with np.errstate(invalid="ignore", divide="ignore"):
        onset_at = np.where(last_low >= 0, last_low + (target - before) / step, 0.0)
    full = ((height >= PLATEAU * top[:, None]) & (positions >= onset[:, None])).argmax(1)
    dead = ~(top > 0)
    out = {"onset": onset, "onset_at": onset_at, "peak": peak, "full": full}
    return {k: np.where(dead, np.nan, v.astype(np.float64)) for k, v in out.items()}


def comparisons(curve: Curve, best: int, null_quantile: float = 0.95) -> dict[str, tuple[float, float]]:
    """What the best block is held against: name to ``(bound, margin)``; it is beaten where the margin is above zero.

    Null: the bound is the quantile of the maximum over blocks of each null draw (without the draws, the largest of the
    null's bounds by block), the margin the curve's lower bound less this bound.  A baseline with as many replicates
    as the curve: the bound is its largest value over blocks, the margin the lower 95 % bound of the paired
    difference of the curve at its best block and the baseline at its own, widened where ``meta["folds"]`` says that
    the curve is cross-validated.  A baseline without: its largest upper bound over blocks, and the curve's lower bound
    less that.  The correction is meant for a t-test of fold-wise means; its use on a bootstrap interval is [own].

    Args:
        curve: with whatever it is to be compared with.
        best: position of its best block.
        null_quantile: of the null.
    """
    low = float(curve.low[best])
    folds = int(curve.meta.get("folds") or 0)
    widen = np.sqrt(1 + folds / (folds - 1)) if folds > 1 else 1.0
    out = {}
    if curve.null_draws is not None:
        bound = float(np.quantile(np.nanmax(curve.null_draws, axis=1), null_quantile))
        out["null"] = (bound, low - bound)
    elif curve.null is not None:
        bound = float(np.nanmax(curve.null))
        out["null"] = (bound, low - bound)
    for name, baseline in curve.baselines.items():
        drawn = baseline.replicates
        if curve.replicates is None or drawn is None or len(drawn) != len(curve.replicates):
            bound = float(np.nanmax(baseline.high))
            out[name] = (bound, low - bound)
            continue
        value = np.atleast_1d(np.asarray(baseline.value, dtype=np.float64))
        at = int(np.nanargmax(value))
        paired = curve.replicates[:, best] - drawn[:, min(at, drawn.shape[1] - 1)]
        own = float(curve.value[best] - value[at])
        out[name] = (float(value[at]), own - float(widen * (own - np.nanquantile(paired, 0.025))))
    return out


def find_role(name: str, curve: Curve, expected: tuple[str, ...] | None = None, notes: tuple[str, ...] = ()) -> Role:
    """Read one role off a curve.

    Args:
        name: of the role.
        curve: with its null and its baselines; ``replicates`` give the onset's interval (without them the
            interval is unknown and the role is not found).
        expected: baselines whose absence is to be printed; default by ``name`` (:data:`REQUIRED`).
        notes: kept with the role.

    Returns:
        :class:`Role`; ``found`` is False with a reason wherever something is not beaten.
    """
    expected = REQUIRED.get(name, ()) if expected is None else expected
    if not np.isfinite(curve.value).any():
        why = str(curve.meta.get("undefined", "the curve has no finite value"))
        return Role(name, False, why, depth=curve.meta.get("depth"), notes=notes)
    known = {"null" if curve.null is not None or curve.null_draws is not None else "", *curve.baselines}
    missing = tuple(k for k in ("null", *expected) if k not in known)
    depth = curve.meta.get("depth")
    plain: dict[str, Any] = {"depth": depth, "notes": notes}
    finite = np.isfinite(curve.value)
    floor = floor_of(curve)
    at = onsets(curve.value, floor)
    best = int(np.nanargmax(np.where(finite, curve.value - floor, np.nan)))
    value, low, high = (float(getattr(curve, k)[best]) for k in ("value", "low", "high"))
    beaten = comparisons(curve, best)
    plain |= {"beaten": beaten, "value": value, "low": low, "high": high, "missing": missing}
    if "null" not in beaten:
        return Role(name, False, "no shuffled-label null was measured", **plain)
    if curve.replicates is None:
        return Role(name, False, "no bootstrap replicates, so its interval is unknown", **plain)
    failed = [k for k, (_, margin) in beaten.items() if not margin > 0]
    if failed or np.isnan(at["onset"][0]):
        worst = max(failed, key=lambda k: beaten[k][0], default="null")
        words = {"null": "shuffled labels (best block of the null)", **_WORDS}.get(worst, worst)
        reason = (
            f"best block {curve.blocks[best]} has {value:.2f} [{low:.2f}, {high:.2f}] {curve.unit}".rstrip()
            + f", not above {words} at {beaten[worst][0]:.2f}"
        )
        return Role(name, False, reason, **plain)
    blocks = np.asarray(curve.blocks)
    onset, peak, full = (int(at[k][0]) for k in ("onset", "peak", "full"))
    drawn = onsets(curve.replicates, floor)["onset"]
    onset_low, onset_high = (int(blocks[int(q)]) for q in _discrete_interval(drawn))
    height = curve.value - floor
    keeps = height >= PLATEAU * height[peak]
    start = end = peak
    while start > 0 and keeps[start - 1]:
        start -= 1
    while end + 1 < len(blocks) and keeps[end + 1]:
        end += 1
    return Role(
        name,
        True,
        onset=int(blocks[onset]),
        onset_low=min(onset_low, int(blocks[onset])),
        onset_high=max(onset_high, int(blocks[onset])),
        onset_at=float(np.interp(at["onset_at"][0], np.arange(len(blocks)), blocks)),
        peak=int(blocks[peak]),
        range=(int(blocks[onset]), int(blocks[full])),
        plateau=(int(blocks[start]), int(blocks[end])),
        **plain,
    )


def _discrete_interval(positions: np.ndarray, confidence: float = 0.95) -> tuple[int, int]:
    """Percentile interval of whole-number positions that leaves out at most the stated share on each side."""
    positions = positions[np.isfinite(positions)]
    tail = (1 - confidence) / 2
    low = np.quantile(positions, tail, method="inverted_cdf")
    high = np.quantile(positions, 1 - tail, method="inverted_cdf")
    return int(low), int(high)


def layer_roles(
    perception: Curve, semantics: Curve, expression: Curve, notes: Mapping[str, tuple[str, ...]] | None = None
) -> LayerRoles:
    """The three roles of three curves; ``notes`` by role name."""
    notes = notes or {}
    curves = {"perception": perception, "semantics": semantics, "expression": expression}
    return LayerRoles(*(find_role(name, curve, notes=notes.get(name, ())) for name, curve in curves.items()))


def order_test(
    first: Any,
    second: Any,
    floor_first: Any = None,
    floor_second: Any = None,
    alpha: float = 0.05,
) -> dict[str, Any]:
    """Does ``first`` begin in an earlier block than ``second``?  Paired bootstrap of the difference of onsets.

    Both curves must be measured on the same resampled groups (:class:`~lvlm_lens.locate.statistics.Resampling`
    with the same groups and seed), replicate by replicate.

    The difference is that of the interpolated onsets, ``second - first``.  The p-value is that of the
    whole-number onsets: the share of replicates in which ``second`` does not begin in a strictly later block,
    ``(1 + #{onset_second <= onset_first}) / (1 + replicates)``: ties, and replicates in which either onset
    does not exist, count against the claim.  Two curves of different height that step at the same block
    differ in the interpolated onset by a fraction of a block that no sample size removes, so a test of that
    fraction would reject a true tie; counting ties keeps the level, at some loss of power for gaps of one
    block.  [own]

    Args:
        first, second: :class:`Curve` with replicates, or replicates ``[replicate, block]`` on the same blocks.
        floor_first, floor_second: ``[block]`` or scalar to subtract from plain replicates; for a
            :class:`Curve` it is :func:`floor_of`.
        alpha: level of the test and, as ``1 - alpha``, of the interval.

    Returns:
        ``difference`` (of the curves' own onsets where curves are given, else the median over replicates),
        ``low``, ``high`` (blocks), ``p_value``, ``ties`` (share of replicates with equal blocks),
        ``undefined`` (share without an onset), ``conclusion``.
    """
    (name_1, whole_1, smooth_1, own_1), (name_2, whole_2, smooth_2, own_2) = (
        _replicate_onsets(value, floor, word)
        for value, floor, word in ((first, floor_first, "first"), (second, floor_second, "second"))
    )
    if len(whole_1) != len(whole_2):
        raise UsageError(f"{len(whole_1)} and {len(whole_2)} replicates; both curves need the same resampling")
    gap, smooth = whole_2 - whole_1, smooth_2 - smooth_1  # NaN where either onset does not exist
    p_value = (1 + int((~(gap > 0)).sum())) / (1 + len(gap))
    p_reverse = (1 + int((~(gap < 0)).sum())) / (1 + len(gap))
    low = high = difference = float("nan")
    if np.isfinite(smooth).any():
        low, high = (float(q) for q in np.nanquantile(smooth, [alpha / 2, 1 - alpha / 2]))
        difference = float(np.nanmedian(smooth))
    if own_1 is not None and own_2 is not None:
        difference = own_2 - own_1
    if p_value < alpha:
        conclusion = f"{name_1} begins in an earlier block than {name_2}"
    elif p_reverse < alpha:
        conclusion = f"{name_2} begins in an earlier block than {name_1}"
    else:
        conclusion = f"no order of {name_1} and {name_2} is shown"
    return {
        "first": name_1,
        "second": name_2,
        "difference": difference,
        "low": low,
        "high": high,
        "p_value": p_value,
        "ties": float((gap == 0).mean()),
        "undefined": float(np.isnan(gap).mean()),
        "alpha": alpha,
        "conclusion": conclusion,
    }


def _replicate_onsets(value: Any, floor: Any, word: str) -> tuple[str, np.ndarray, np.ndarray, float | None]:
    """Name, whole-number and interpolated onsets of the replicates, and the curve's own interpolated onset."""
    if not isinstance(value, Curve):
        found = onsets(value, 0.0 if floor is None else floor)
        return word, found["onset"], found["onset_at"], None
    if value.replicates is None:
        raise UsageError(f"curve {value.name!r} has no bootstrap replicates; the order test needs them")
    floor = floor_of(value) if floor is None else floor
    found = onsets(value.replicates, floor)
    whole, smooth = (np.interp(found[key], np.arange(len(value)), value.blocks) for key in ("onset", "onset_at"))
    own = np.interp(onsets(value.value, floor)["onset_at"][0], np.arange(len(value)), value.blocks)
    return value.name, whole, smooth, float(own)
