"""From curves to layer roles: where perception, semantics and expression begin, each with its interval.

A curve that rises in the middle is not a finding.  A role is *found* only where its best block, interval
and all, beats five things: the shuffled-label null, the unimodal baselines, what has nothing to do with harm (length,
size, brightness), the input embeddings, and the same measure on a random-weight twin.  The value that is held
against them is that of a block chosen on other folds (:mod:`lvlm_lens.stats.choice`), and so is the null's.  A curve
without folds is held against the null's best block (the quantile of the maximum over blocks of each null draw), and its
printed interval is a simultaneous band.  A baseline that has a value for every block counts with its best block.
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
* *onset*: the first block at which the strength of the signal, on the scale of d', has reached half of its plateau
  (:mod:`lvlm_lens.stats.onset`); ``onset_at`` is the crossing itself, a real number.  An AUROC saturates, and crosses
  half of its height the earlier the stronger the signal and the larger the sample are; a strength does not;
* *range*: from the onset to the first block at three quarters of the plateau;
* *plateau*: the blocks around the peak that keep 80 % of its height.

The interval of the onset learns the direction anew in every draw.  A measure without a strength (a cosine, a share)
keeps the older reading: the first block from which its own height stays above half of the peak's, range up to 80 % of
it, and the percentile interval of the replicates' onsets; this onset holds at this sample size and strength only.
Sources: half-height onset and the things to beat [own]; floor with baselines, range
and plateau levels are [own].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError, UsageError
from ..stats.choice import simultaneous_band
from ..stats.curve import Curve
from ..stats.onset import HEIGHTS, LEVEL, order_of, order_words

REQUIRED = {
    "perception": ("text_only", "image_only", "nuisance", "input_embedding", "random_twin"),
    "semantics": ("text_only", "image_only", "nuisance", "input_embedding", "random_twin"),
    "expression": ("nuisance", "random_twin"),
}
"""Baselines a role is expected to be compared with; those not given are named as missing."""

_WORDS = {
    "text_only": "the text-only baseline",
    "image_only": "the image-only baseline",
    "nuisance": "length, picture size and brightness alone",
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
        value, low, high: at a best block that was chosen on other folds; for a curve without folds, at its best block
            with a simultaneous band.
        strength: d' on the plateau, where the curve has one; sample: how much was compared (``300 items``).
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
    strength: float | None = None
    sample: str = ""
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
                f"{self.name} {blocks} (onset {self.onset} [{self.onset_low}, {self.onset_high}]{self.at_strength}, "
                f"peak {self.peak}, best {self.value:.2f} [{self.low:.2f}, {self.high:.2f}])"
            )
        if self.missing:
            text += f" (not compared with {', '.join(_WORDS.get(m, m) for m in self.missing)})"
        return text

    def __repr__(self) -> str:
        return f"<{self}>"

    @property
    def at_strength(self) -> str:
        """`` at 300 items, d' 2.5``: what an onset holds for; empty where it is not known."""
        known = [self.sample] if self.sample else []
        known += [] if self.strength is None else [f"d' {self.strength:.1f}"]
        return f" at {', '.join(known)}" if known else ""

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

    Null: the bound is the quantile of the null's values at blocks chosen on other folds; for a curve without folds, of
    the maximum over blocks of each null draw (without the draws, the largest of the null's bounds by block).  The
    margin is the curve's lower bound less this bound.  A baseline with as many replicates
    as the curve: the bound is its largest value over blocks, the margin the lower 95 % bound of the paired
    difference of the curve at its best block and the baseline at its own, widened where ``meta["folds"]`` says that
    the curve is cross-validated.  A baseline without: its largest upper bound over blocks, and the curve's lower bound
    less that.  The correction is meant for a t-test of fold-wise means; its use on a bootstrap interval is [own].

    Args:
        curve: with whatever it is to be compared with.
        best: position of its best block.
        null_quantile: of the null.
    """
    own, low = float(curve.value[best]), float(curve.low[best])
    replicates = None if curve.replicates is None else curve.replicates[:, best]
    if curve.best is not None:
        own, low, replicates = curve.best.value, curve.best.low, curve.best.replicates
    folds = int(curve.meta.get("folds") or 0)
    widen = np.sqrt(1 + folds / (folds - 1)) if folds > 1 else 1.0
    out = {}
    if curve.best is not None and curve.best.null is not None:
        bound = float(np.nanquantile(curve.best.null, null_quantile))
        out["null"] = (bound, low - bound)
    elif curve.null_draws is not None:
        bound = float(np.quantile(np.nanmax(curve.null_draws, axis=1), null_quantile))
        out["null"] = (bound, low - bound)
    elif curve.null is not None:
        bound = float(np.nanmax(curve.null))
        out["null"] = (bound, low - bound)
    for name, baseline in curve.baselines.items():
        drawn = baseline.replicates
        if replicates is None or drawn is None or len(drawn) != len(replicates):
            bound = float(np.nanmax(baseline.high))
            out[name] = (bound, low - bound)
            continue
        value = np.atleast_1d(np.asarray(baseline.value, dtype=np.float64))
        at = int(np.nanargmax(value))
        paired = replicates - drawn[:, min(at, drawn.shape[1] - 1)]
        apart = float(own - value[at])
        out[name] = (float(value[at]), apart - float(widen * (apart - np.nanquantile(paired, 0.025))))
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
    value, low, high = _printed(curve, best)
    beaten = comparisons(curve, best)
    plain |= {"beaten": beaten, "value": value, "low": low, "high": high, "missing": missing}
    plain["sample"] = str(curve.meta.get("sample", ""))
    plain["strength"] = None if curve.rise is None or not curve.rise.strength > 0 else curve.rise.strength
    if "null" not in beaten:
        return Role(name, False, "no shuffled-label null was measured", **plain)
    if curve.replicates is None:
        return Role(name, False, "no bootstrap replicates, so its interval is unknown", **plain)
    failed = [k for k, (_, margin) in beaten.items() if not margin > 0]
    if failed or np.isnan(at["onset"][0]):
        worst = max(failed, key=lambda k: beaten[k][0], default="null")
        words = {"null": "shuffled labels (best block of the null)", **_WORDS}.get(worst, worst)
        numbers = (value, low, high, beaten[worst][0])
        said = [f"{number:.{_places(*numbers)}f}" for number in numbers]
        found = f"best block {curve.blocks[best]} has {said[0]} [{said[1]}, {said[2]}] {curve.unit}".rstrip()
        reason = f"{found}, not above {words} at {said[3]}"
        return Role(name, False, reason, **plain)
    blocks = np.asarray(curve.blocks)
    onset, peak, full = (int(at[k][0]) for k in ("onset", "peak", "full"))
    onset_at = float(at["onset_at"][0])
    low_at, high_at = _discrete_interval(onsets(curve.replicates, floor)["onset"])
    if curve.rise is not None and np.isfinite(curve.rise.at).all():
        onset_at, peak = float(curve.rise.at[HEIGHTS.index(0.5)]), curve.rise.peak
        onset, full = (_block(curve.rise.at[HEIGHTS.index(height)], len(blocks)) for height in (0.5, 0.75))
        low_at, high_at = (_block(q, len(blocks)) for q in curve.rise.interval())
    onset_low, onset_high = int(blocks[low_at]), int(blocks[high_at])
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
        onset_at=float(np.interp(onset_at, np.arange(len(blocks)), blocks)),
        peak=int(blocks[peak]),
        range=(int(blocks[onset]), int(blocks[full])),
        plateau=(int(blocks[start]), int(blocks[end])),
        **plain,
    )


def _printed(curve: Curve, best: int) -> tuple[float, float, float]:
    """Value and interval of the best block without the luck of its choice."""
    if curve.best is not None:
        return curve.best.value, curve.best.low, curve.best.high
    low, high = curve.low, curve.high
    if curve.replicates is not None and len(curve) > 1:
        low, high = simultaneous_band(curve.value, curve.replicates)
    return float(curve.value[best]), float(low[best]), float(high[best])


def _block(at: float, count: int) -> int:
    """First position that has reached a crossing."""
    return int(np.clip(np.ceil(np.nan_to_num(at, nan=count - 1, posinf=count - 1) - 1e-9), 0, count - 1))


def _places(*numbers: float) -> int:
    """Decimal places that show two digits of the largest number: a difference of 0.001 must not be told as 0.00."""
    largest = max((abs(number) for number in numbers if math.isfinite(number)), default=0.0)
    return 2 if largest == 0.0 else max(2, 1 - math.floor(math.log10(largest)))


def _discrete_interval(positions: np.ndarray, confidence: float = 0.95) -> tuple[int, int]:
    """Percentile interval of whole-number positions that leaves out at most the stated share on each side."""
    positions = positions[np.isfinite(positions)]
    tail = (1 - confidence) / 2
    low = np.quantile(positions, tail, method="inverted_cdf")
    high = np.quantile(positions, 1 - tail, method="inverted_cdf")
    return int(low), int(high)


def order_test(first: Curve, second: Curve) -> dict[str, Any]:
    """Does one role begin in an earlier block than the other, whatever their strengths?

    Both curves need a ``rise`` of the same call (:func:`lvlm_lens.stats.onset.rises`), whose draws belong together.

    Returns:
        ``first``, ``second``: names; ``difference`` of the onsets at half height (second less first, blocks), ``low``,
        ``high``; ``by_height``; ``p_value`` (two-sided); ``ratio`` of the strengths; ``earlier``: name or ``None``;
        ``told``: False where nothing can be said; ``alpha``; ``conclusion``.

    Raises:
        UsageError: a curve without a rise, or with other blocks.
    """
    if first.rise is None or second.rise is None or first.blocks != second.blocks:
        raise UsageError(f"the order of {first.name} and {second.name} needs onsets of both on the same blocks")
    found = order_of(first.rise, second.rise)
    names = (first.name, second.name)
    steps = np.diff(first.blocks)
    step = float(steps.mean()) if len(steps) else 1.0  # positions to blocks
    return {
        "first": names[0],
        "second": names[1],
        "difference": found.difference * step,
        "low": found.low * step,
        "high": found.high * step,
        "by_height": dict(zip(map(str, HEIGHTS), (x * step for x in found.by_height), strict=True)),
        "p_value": found.p_value,
        "ratio": found.ratio,
        "earlier": names[found.first - 1] if found.first else None,
        "told": found.told,
        "alpha": LEVEL,
        "conclusion": order_words(found, names),
    }
