"""A measure by block, with all that is needed to believe or disbelieve it.

A :class:`Curve` is what every locator returns: one value per block, its bootstrap interval, the
upper bound of its shuffled-label null, and the baselines it has to beat.  It keeps, on request,
the bootstrap replicates (so that two curves measured on the same resampled groups can be
compared pair by pair) and the null draws (so that the best block can be held against the best
block of the null, and not against the null at one block chosen afterwards).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..depth import relative_depth
from ..errors import DataError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from .onset import Rise

BASELINES = ("text_only", "image_only", "input_embedding", "random_twin", "random_features")
"""Names that :mod:`~lvlm_lens.locate.roles` knows; a curve may carry others beside them."""


def _array(value: Any, blocks: int, what: str) -> np.ndarray:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim == 0:
        array = np.full(blocks, float(array))
    if array.shape != (blocks,):
        raise UsageError(f"{what} has shape {array.shape}; expected one value for each of {blocks} blocks")
    return array


def _plain(array: np.ndarray | None) -> Any:
    """JSON value of an array: NaN and infinity become null, which is all that strict JSON allows."""
    if array is None:
        return None
    if array.ndim > 1:
        return [_plain(row) for row in array]
    return [float(x) if np.isfinite(x) else None for x in array]


def _from_plain(value: Any) -> Any:
    return None if value is None else np.asarray(
        [[np.nan if x is None else x for x in row] if isinstance(row, list) else (np.nan if row is None else row)
         for row in value], dtype=np.float64)  # fmt: skip


@dataclass(frozen=True)
class Baseline:
    """A number to beat: ``value``, ``low``, ``high``, each ``[block]`` or one scalar for all blocks.

    ``replicates [replicate, block or 1]`` are kept where the baseline was measured on the same resampled groups as the
    curve beside which it stands, so that the two can be compared replicate by replicate.
    """

    value: np.ndarray | float
    low: np.ndarray | float
    high: np.ndarray | float
    replicates: np.ndarray | None = field(default=None, repr=False, compare=False)

    def on(self, blocks: int) -> Baseline:
        """The same baseline as arrays ``[block]``."""
        value, low, high = (_array(getattr(self, k), blocks, f"baseline {k}") for k in ("value", "low", "high"))
        return Baseline(value, low, high, self.replicates)

    @property
    def scalar(self) -> bool:
        """True for one number that holds for all blocks."""
        return np.ndim(self.value) == 0

    def to_dict(self, draws: bool = False) -> dict[str, Any]:
        """JSON-ready dictionary; ``draws`` keeps the replicates."""
        keys = ("value", "low", "high")
        data = {k: float(getattr(self, k)) if self.scalar else _plain(np.asarray(getattr(self, k))) for k in keys}
        if draws and self.replicates is not None:
            data["replicates"] = _plain(self.replicates)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Baseline:
        """Inverse of :meth:`to_dict`."""
        keys = ("value", "low", "high")
        value, low, high = (_from_plain(data[k]) if isinstance(data[k], list) else data[k] for k in keys)
        return cls(value, low, high, _from_plain(data.get("replicates")))


@dataclass(frozen=True)
class Best:
    """The value at the best block, chosen on other items than those it is measured on (:mod:`lvlm_lens.stats.choice`).

    Attributes:
        value, low, high: with its interval.
        replicates: ``[replicate]``; null: ``[draw]``, the same under shuffled labels, or ``None``.
    """

    value: float
    low: float
    high: float
    replicates: np.ndarray | None = field(default=None, repr=False, compare=False)
    null: np.ndarray | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, eq=False)
class Curve:
    """One measure over blocks.

    Attributes:
        name: what is measured, e.g. ``perception``.
        blocks: block numbers ``[block]``.
        value, low, high: ``[block]``, estimate and its bootstrap interval (95 % unless ``meta`` says otherwise).
        null: ``[block]``, upper bound (95th percentile) of the shuffled-label null, or ``None`` where
            the measure has none.
        null_mean: ``[block]``, mean of the null draws.
        baselines: :class:`Baseline` by name (see :data:`BASELINES`); the random-weight twin is
            ``baselines["random_twin"]``.
        unit: of ``value``, e.g. ``AUROC``; n: samples.
        meta: settings and whatever else a reader should know (``measure``, ``groups``, ``folds`` ...).
        replicates: ``[replicate, block]`` bootstrap replicates, or ``None``.
        null_draws: ``[draw, block]`` null draws, or ``None``.
        best: the value at the best block without the luck of choosing it, or ``None``.
        rise: onsets on the scale of d' (:mod:`lvlm_lens.stats.onset`), or ``None`` for a curve without them.
    """

    name: str
    blocks: tuple[int, ...]
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    null: np.ndarray | None = None
    null_mean: np.ndarray | None = None
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    unit: str = ""
    n: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)
    replicates: np.ndarray | None = field(default=None, repr=False)
    null_draws: np.ndarray | None = field(default=None, repr=False)
    best: Best | None = None
    rise: Rise | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        blocks = tuple(int(b) for b in self.blocks)
        if not blocks:
            raise DataError(f"curve {self.name!r} has no blocks")
        object.__setattr__(self, "blocks", blocks)
        for key in ("value", "low", "high", "null", "null_mean"):
            if getattr(self, key) is not None:
                object.__setattr__(self, key, _array(getattr(self, key), len(blocks), f"curve {self.name!r}: {key}"))
        for key in ("replicates", "null_draws"):
            rows = getattr(self, key)
            if rows is not None:
                rows = np.asarray(rows, dtype=np.float64)
                if rows.ndim != 2 or rows.shape[1] != len(blocks):
                    raise UsageError(f"curve {self.name!r}: {key} has shape {rows.shape}; expected [*, {len(blocks)}]")
                object.__setattr__(self, key, rows)
        for name, baseline in self.baselines.items():
            baseline.on(len(blocks))  # raises where a length is wrong
            if not isinstance(name, str):
                raise UsageError("baseline names are strings")

    def __len__(self) -> int:
        return len(self.blocks)

    def __repr__(self) -> str:
        best = self.peak
        at = self.blocks.index(best)
        return (
            f"Curve({self.name!r}, {len(self)} blocks, n={self.n}, best {self.value[at]:.3f} "
            f"[{self.low[at]:.3f}, {self.high[at]:.3f}] {self.unit} at block {best})"
        )

    @property
    def peak(self) -> int:
        """Block number of the largest value."""
        return self.blocks[int(np.nanargmax(self.value))] if np.isfinite(self.value).any() else self.blocks[0]

    @property
    def relative_depth(self) -> np.ndarray:
        """:func:`~lvlm_lens.depth.relative_depth` of each block; ``meta['depth']`` gives the model's block count."""
        return relative_depth(self.blocks, self.meta.get("depth", max(self.blocks) + 1))

    def with_baseline(self, name: str, value: Any, low: Any = None, high: Any = None) -> Curve:
        """A copy with one more baseline: numbers, or another curve (its value and interval by block)."""
        if isinstance(value, Curve):
            if value.blocks != self.blocks:
                raise UsageError(f"baseline {name!r} has blocks {value.blocks}, the curve has {self.blocks}")
            baseline = Baseline(value.value, value.low, value.high, value.replicates)
        elif isinstance(value, Baseline):
            baseline = value
        else:
            baseline = Baseline(value, value if low is None else low, value if high is None else high)
        return replace(self, baselines={**self.baselines, name: baseline})

    def without_draws(self) -> Curve:
        """A copy without replicates and null draws (small enough for a results file)."""
        plain = {name: replace(baseline, replicates=None) for name, baseline in self.baselines.items()}
        best = self.best and replace(self.best, replicates=None, null=None)
        rise = self.rise and replace(self.rise, draws=self.rise.draws[:0])
        return replace(self, replicates=None, null_draws=None, baselines=plain, best=best, rise=rise)

    def to_dict(self, draws: bool = False) -> dict[str, Any]:
        """JSON-ready dictionary; ``draws`` keeps replicates and null draws."""
        data: dict[str, Any] = {
            "name": self.name,
            "blocks": list(self.blocks),
            "value": _plain(self.value),
            "low": _plain(self.low),
            "high": _plain(self.high),
            "null": _plain(self.null),
            "null_mean": _plain(self.null_mean),
            "baselines": {name: baseline.to_dict(draws) for name, baseline in self.baselines.items()},
            "unit": self.unit,
            "n": int(self.n),
            "meta": dict(self.meta),
        }
        if self.best is not None:
            data["best"] = _plain(np.array([self.best.value, self.best.low, self.best.high]))
        if self.rise is not None:
            data["rise"] = self.rise.to_dict()
        if draws:
            data["replicates"] = _plain(self.replicates)
            data["null_draws"] = _plain(self.null_draws)
            if self.best is not None:
                data["best_draws"] = {key: _plain(getattr(self.best, key)) for key in ("replicates", "null")}
            if self.rise is not None:
                data["rise_draws"] = _plain(self.rise.draws)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Curve:
        """Inverse of :meth:`to_dict`."""
        from .onset import Rise

        missing = [key for key in ("name", "blocks", "value", "low", "high") if key not in data]
        if missing:
            raise DataError(f"not a curve: {', '.join(missing)} missing")
        arrays = {
            k: _from_plain(data.get(k))
            for k in ("value", "low", "high", "null", "null_mean", "replicates", "null_draws")
        }
        baselines = {name: Baseline.from_dict(b) for name, b in data.get("baselines", {}).items()}
        best = rise = None
        if data.get("best") is not None:
            drawn = {key: _from_plain(rows) for key, rows in data.get("best_draws", {}).items()}
            best = Best(*_from_plain(data["best"]).tolist(), **drawn)
        if data.get("rise") is not None:
            rise = Rise.from_dict(data["rise"], _from_plain(data.get("rise_draws")))
        return cls(
            name=data["name"],
            blocks=tuple(data["blocks"]),
            baselines=baselines,
            unit=data.get("unit", ""),
            n=data.get("n", 0),
            meta=data.get("meta", {}),
            best=best,
            rise=rise,
            **arrays,
        )

    def to_dataframe(self) -> pd.DataFrame:
        """One row per block: curve, block, depth, value, low, high, null, null_mean and ``<baseline>`` columns."""
        import pandas as pd

        empty = np.full(len(self), np.nan)
        columns: dict[str, Any] = {
            "curve": self.name,
            "block": self.blocks,
            "depth": self.relative_depth,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "null": empty if self.null is None else self.null,
            "null_mean": empty if self.null_mean is None else self.null_mean,
        }
        for name, baseline in self.baselines.items():
            by_block = baseline.on(len(self))
            columns |= {name: by_block.value, f"{name}_low": by_block.low, f"{name}_high": by_block.high}
        return pd.DataFrame(columns)


def curve_from_draws(
    name: str,
    blocks: Any,
    value: np.ndarray,
    replicates: np.ndarray | None = None,
    null_draws: np.ndarray | None = None,
    confidence: float = 0.95,
    null_quantile: float = 0.95,
    **more: Any,
) -> Curve:
    """Build a :class:`Curve` whose interval and null come from draws.

    Args:
        name: of the curve.
        blocks: block numbers ``[block]``.
        value: ``[block]``.
        replicates: ``[replicate, block]`` bootstrap replicates: the interval is their percentile
            interval; without them low and high equal the value.
        null_draws: ``[draw, block]``; the null bound is their ``null_quantile`` by block.
        confidence: of the interval.
        null_quantile: of the null bound.
        more: further fields of :class:`Curve`.
    """
    tail = (1 - confidence) / 2
    value = np.asarray(value, dtype=np.float64)
    low, high = value, value
    if replicates is not None:
        low, high = percentile(replicates, tail), percentile(replicates, 1 - tail)
    null = null_mean = None
    if null_draws is not None:
        null, null_mean = percentile(null_draws, null_quantile), np.mean(null_draws, 0)
    return Curve(
        name, tuple(blocks), value, low, high, null, null_mean, replicates=replicates, null_draws=null_draws, **more
    )


def percentile(draws: np.ndarray, quantile: float) -> np.ndarray:
    """Quantile of ``draws [draw, block]`` by block, NaN draws left out; NaN where no draw is finite."""
    draws = np.asarray(draws, dtype=np.float64)
    if np.isfinite(draws).all():
        return np.quantile(draws, quantile, axis=0)
    out = np.full(draws.shape[1], np.nan)
    for at in range(draws.shape[1]):
        finite = draws[np.isfinite(draws[:, at]), at]
        if len(finite):
            out[at] = np.quantile(finite, quantile)
    return out
