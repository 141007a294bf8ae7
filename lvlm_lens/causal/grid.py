"""``PatchGrid``: what a patch grid found, with its baselines, its null and its check; and its folder.

On disk a grid is ``grid.json`` (axes, settings, how exact it was) and Parquet parts in long form, one per batch of
pairs, each written to a temporary file, synced and renamed.  A run that was killed leaves only whole parts, and the
same command continues with the pairs that have none.  No pickle is read or written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RunFolderError
from ..stats.groups import bootstrap_mean, bootstrap_ratio
from ..stats.maxt import attainable, max_t
from ..storage.commit import replacing, write_atomic, writing
from ..storage.identity import fingerprint, require
from ..tolerance import TOLD

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "grid.json"
AXES = ("direction", "site", "block", "position", "pair")


@dataclass(frozen=True)
class Normalized:
    """Effects of single pairs as a share of their own gap between the two baselines, for looking at a pair.

    A mean of such shares follows the pairs with the smallest gaps: :meth:`PatchGrid.summary` divides sums instead.

    Attributes:
        values: ``[direction, site, block, position, pair]``; 0: as without the patch, 1: as the donor's prompt.
            NaN in dropped pairs.
        null: ``[draw, direction, site, block, position, pair]``, or ``None``.
        dropped: numbers of the pairs whose baselines lie closer than ``min_gap``.
        min_gap: smallest ``|clean - corrupted|`` that was used.
    """

    values: np.ndarray
    null: np.ndarray | None
    dropped: tuple[int, ...]
    min_gap: float


@dataclass(frozen=True)
class Gap:
    """Mean gap between the baselines and its interval (NaN where all pairs are of one group)."""

    value: float
    low: float
    high: float

    @property
    def divides(self) -> bool:
        """Whether effects can be given as shares of it."""
        return self.value != 0 and not self.low <= 0 <= self.high


@dataclass
class PatchGrid:
    """The metric in every cell of a grid of interventions.

    Attributes:
        values: the metric after the patch, float64 ``[direction, site, block, position, pair]``; NaN where a
            cell does not exist (a shorter question, ``image_features`` above block 0).
        clean, corrupted: the metric of the untouched prompts, ``[pair]``.
        null: the same as ``values`` for changes that must not matter as much,
            ``[draw, direction, site, block, position, pair]``, or ``None``.
        directions, sites, blocks, positions: names along the axes; a block stands for the window it begins.
        pairs: ``(clean id, corrupted id)``; groups: of the pairs.
        window: number of blocks patched together; metric: its name.
        engine: ``resumed`` (only what a cell can change was computed) or ``full``; reason: why.
        verification: cells compared with plain forwards, the largest difference of logits, the smallest that was
            allowed, the noise and the smallest effect it was held against; see
            :mod:`lvlm_lens.interventions.verification`.
        meta: settings, model and seeds.
        nulls: the kind of each draw of ``null`` (:mod:`~lvlm_lens.causal.nulls`).
    """

    values: np.ndarray = field(repr=False)
    clean: np.ndarray = field(repr=False)
    corrupted: np.ndarray = field(repr=False)
    null: np.ndarray | None = field(repr=False)
    directions: tuple[str, ...]
    sites: tuple[str, ...]
    blocks: tuple[int, ...]
    positions: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...] = field(repr=False)
    groups: tuple[str, ...] = field(repr=False)
    window: int
    metric: str
    engine: str
    reason: str
    verification: Mapping[str, Any]
    meta: Mapping[str, Any] = field(default_factory=dict, repr=False)
    nulls: tuple[str, ...] = ("random",)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of :attr:`values`."""
        return AXES

    def normalized(self, min_gap: float | None = None) -> Normalized:
        """Effects as shares of the baselines' gap, in the direction of the donor.

        Denoising: ``(patched - corrupted) / (clean - corrupted)``.  Noising:
        ``(patched - clean) / (corrupted - clean)``.  So 1 always means that the patch alone made the prompt behave
        as its donor.

        Args:
            min_gap: pairs with a smaller ``|clean - corrupted|`` are dropped and counted; by default a tenth of
                the median gap, and never less than 1e-6.
        """
        gap = self.clean - self.corrupted  # [pair]
        if min_gap is None:
            min_gap = max(1e-6, 0.1 * float(np.median(np.abs(gap))))
        good = np.abs(gap) >= min_gap
        toward = {"denoise": (self.corrupted, gap), "noise": (self.clean, -gap)}
        scale = [(start, np.where(good, step, np.nan)) for start, step in (toward[d] for d in self.directions)]

        def share(values: np.ndarray) -> np.ndarray:
            return np.stack([(v - start) / step for v, (start, step) in zip(values, scale, strict=True)])

        null = None if self.null is None else np.stack([share(draw) for draw in self.null])
        return Normalized(share(self.values), null, tuple(np.flatnonzero(~good).tolist()), min_gap)

    def gap(self, confidence: float = 0.95, seed: int = 0) -> Gap:
        """Mean gap ``clean - corrupted`` with its interval over groups; what effects are divided by, where they are."""
        gaps = self.clean - self.corrupted
        low, high = (float(b[0]) for b in bootstrap_mean(gaps, self.groups, confidence=confidence, seed=seed))
        return Gap(float(gaps.mean()), low, high)

    def _toward_donor(self, values: np.ndarray) -> np.ndarray:
        """Change of the metric ``[direction, ..., pair]``, positive where it goes the way of the clean prompt's gap."""
        start = {"denoise": lambda v: v - self.corrupted, "noise": lambda v: self.clean - v}
        return np.stack([start[name](v) for name, v in zip(self.directions, values, strict=True)])

    def summary(self, level: float = 0.05, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """One row per cell of the grid: its effect, what it is held against, and whether it survives.

        ``effect`` is the sum of the changes towards the donor over the sum of the gaps between the baselines, with an
        interval from redrawing groups (``low``, ``high``); where the interval of the mean gap contains 0 there is
        nothing to divide by, and it is the mean change in units of the metric (``unit``).  ``magnitude`` is the same
        without signs, and stands beside that of each null (``null_random`` ...): a random change pushes one pair up
        and another down, so its mean is near 0 however much it disturbs.

        Tests are one-sided sign flips of groups, adjusted over the whole grid by step-down max-T: ``p_zero`` that the
        effect is above 0, ``p_random`` ... that it is larger in size than each null.  ``p_adjusted`` is the largest of
        these, ``beaten`` names the nulls that were beaten at ``level``, and a cell ``survives`` that is above 0 and
        beats every null that was run.  ``above_noise``: see :meth:`above_noise`.
        """
        import pandas as pd

        cells = [(d, s, b, p) for d in self.directions for s in self.sites for b in self.blocks for p in self.positions]
        shift = self._toward_donor(self.values).reshape(len(cells), -1)  # [cell, pair]
        gap = self.gap(confidence, seed)
        gaps = self.clean - self.corrupted if gap.divides else np.ones(len(self.pairs))
        there = np.isfinite(shift)
        below = np.where(there, gaps, 0.0).sum(1)

        def over_gap(sums: np.ndarray) -> np.ndarray:
            return np.divide(sums, below, out=np.full(len(cells), np.nan), where=there.any(1) & (below != 0))

        frame = pd.DataFrame(cells, columns=["direction", "site", "block", "position"])
        frame["pairs"], frame["effect"] = there.sum(1), over_gap(np.nansum(shift, 1))
        frame["low"], frame["high"] = bootstrap_ratio(shift, gaps, self.groups, confidence=confidence, seed=seed)
        frame["unit"] = "share of the gap" if gap.divides else self.metric
        frame["magnitude"] = np.abs(over_gap(np.nansum(np.abs(shift), 1)))
        toward = -1.0 if gap.divides and gap.value < 0 else 1.0
        tests = {"zero": toward * shift}
        for name, size in self._null_sizes().items():
            both = np.where(there, size.reshape(len(cells), -1), np.nan)
            frame[f"null_{name}"] = np.abs(over_gap(np.where(np.isfinite(both).any(1), np.nansum(both, 1), np.nan)))
            tests[name] = np.abs(shift) - both
        found = {name: max_t(values, self.groups, one_sided=True, seed=seed) for name, values in tests.items()}
        for name, test in found.items():
            frame[f"p_{name}"] = test.adjusted
        nulls = [name for name in found if name != "zero"]
        with np.errstate(invalid="ignore"):
            frame["p_adjusted"] = np.fmax.reduce([test.adjusted for test in found.values()])
            beats = {name: found[name].adjusted <= level for name in nulls}
            frame["survives"] = frame["p_adjusted"].to_numpy() <= level
        frame["beaten"] = [", ".join(name for name in nulls if beats[name][at]) for at in range(len(cells))]
        above = self.above_noise()
        frame["above_noise"] = None if above is None else above.reshape(-1)
        frame.attrs.update(
            level=level, gap=gap.value, gap_low=gap.low, gap_high=gap.high,
            attainable=attainable(self.groups, len(cells), level, one_sided=True),
        )  # fmt: skip
        return frame

    def _null_sizes(self) -> dict[str, np.ndarray]:
        """Mean size of the change under each null, ``[direction, site, block, position, pair]``."""
        if self.null is None:
            return {}
        sizes = np.stack([np.abs(self._toward_donor(draw)) for draw in self.null])
        kinds = np.asarray(self.nulls)
        return {name: sizes[kinds == name].mean(0) for name in dict.fromkeys(self.nulls)}

    def above_noise(self) -> np.ndarray | None:
        """Bool ``[direction, site, block, position]``: cells that change the metric by more than rounding does.

        Mean ``|patched - unpatched|`` over pairs against :data:`TOLD` times the noise: what the metric of one and the
        same plain forward does in another batch shape.  ``None`` where no cell was compared with plain forwards.
        """
        noise = self.verification.get("metric_noise")
        if noise is None:
            return None
        moved = np.abs(self._toward_donor(self.values))
        count = np.isfinite(moved).sum(-1)
        mean = np.divide(np.nansum(moved, -1), count, out=np.zeros(count.shape), where=count > 0)
        return mean > TOLD * noise

    def survives(self, level: float = 0.05, **options: Any) -> np.ndarray:
        """Bool ``[direction, site, block, position]``: cells whose effect is above 0 and beats every null."""
        return self.summary(level, **options)["survives"].to_numpy().reshape(self.values.shape[:-1])

    def mean_effect(self) -> np.ndarray:
        """Effect as in :meth:`summary`, ``[direction, site, block, position]``."""
        return self.summary()["effect"].to_numpy().reshape(self.values.shape[:-1])

    def to_dataframe(self) -> pd.DataFrame:
        """One row per cell and pair: axes, ids, baselines, patched metric and normalised effect."""
        import pandas as pd

        d, s, b, p, n = (axis.reshape(-1) for axis in np.indices(self.values.shape))
        return pd.DataFrame(
            {
                "direction": np.asarray(self.directions)[d],
                "site": np.asarray(self.sites)[s],
                "block": np.asarray(self.blocks)[b],
                "position": np.asarray(self.positions)[p],
                "pair": n,
                "clean_id": np.asarray([pair[0] for pair in self.pairs])[n],
                "corrupted_id": np.asarray([pair[1] for pair in self.pairs])[n],
                "group": np.asarray(self.groups)[n],
                "clean": self.clean[n],
                "corrupted": self.corrupted[n],
                "patched": self.values.reshape(-1),
                "effect": self.normalized().values.reshape(-1),
            }
        )

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {size}" for name, size in zip(AXES, self.values.shape, strict=True))
        worst = self.verification.get("max_abs_diff")
        checked = f", checked to {worst:.1e}" if worst is not None else ""
        return f"PatchGrid({self.metric}: {sizes}; engine {self.engine}{checked})"

    # -- disk --------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write ``grid.json`` and one Parquet part; an existing grid in the folder is replaced part by part."""
        home = GridFolder(Path(folder), self._settings(), replace=True)
        home.add(range(len(self.pairs)), self.values, self.clean, self.corrupted, self.null)
        home.finish(self)
        return home.path

    def _settings(self) -> dict[str, Any]:
        return {
            "directions": list(self.directions),
            "sites": list(self.sites),
            "blocks": list(self.blocks),
            "positions": list(self.positions),
            "pairs": [list(pair) for pair in self.pairs],
            "groups": list(self.groups),
            "window": self.window,
            "metric": self.metric,
            "nulls": [] if self.null is None else list(self.nulls),
            "meta": dict(self.meta),
        }

    @classmethod
    def load(cls, folder: str | Path) -> PatchGrid:
        """Read a finished grid back; raises :class:`RunFolderError` where it is missing, unfinished or broken."""
        path = Path(folder)
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunFolderError(f"folder {str(path)!r} holds no readable {MANIFEST}: {error}") from error
        if not manifest.get("finished"):
            raise RunFolderError(
                f"the grid in {str(path)!r} is not finished; run the same command again to continue it"
            )
        settings = manifest["settings"]
        arrays = _empty(settings)
        if len(_read_parts(path, arrays)) != len(settings["pairs"]):
            raise RunFolderError(f"parts of the grid in {str(path)!r} are missing")
        return cls(
            values=arrays["patched"],
            clean=arrays["clean"],
            corrupted=arrays["corrupted"],
            null=arrays["null"] if settings["nulls"] else None,
            directions=tuple(settings["directions"]),
            sites=tuple(settings["sites"]),
            blocks=tuple(settings["blocks"]),
            positions=tuple(settings["positions"]),
            pairs=tuple((a, b) for a, b in settings["pairs"]),
            groups=tuple(settings["groups"]),
            window=settings["window"],
            metric=settings["metric"],
            engine=manifest["engine"],
            reason=manifest["reason"],
            verification=manifest["verification"],
            meta=settings["meta"],
            nulls=tuple(settings["nulls"]),
        )


def _empty(settings: Mapping[str, Any]) -> dict[str, np.ndarray]:
    shape = [len(settings[name]) for name in ("directions", "sites", "blocks", "positions", "pairs")]
    return {
        "patched": np.full(shape, np.nan),
        "null": np.full([len(settings["nulls"]), *shape], np.nan),
        "clean": np.full(shape[-1], np.nan),
        "corrupted": np.full(shape[-1], np.nan),
    }


def _read_parts(path: Path, arrays: dict[str, np.ndarray]) -> set[int]:
    """Fill arrays from every part; return the pairs found."""
    import pyarrow.parquet as pq

    done: set[int] = set()
    for part in sorted(path.glob("part-*.parquet")):
        table = pq.read_table(part)
        columns = {name: table[name].to_numpy() for name in (*AXES, "draw", "value")}
        kinds = np.asarray(table["kind"].to_pylist())
        for kind, array in arrays.items():
            rows = kinds == kind
            axes = {"patched": AXES, "null": ("draw", *AXES)}.get(kind, ("pair",))
            array[tuple(columns[axis][rows] for axis in axes)] = columns["value"][rows]
        done |= set(columns["pair"].tolist())
    return done


class GridFolder:
    """The folder of one grid: a manifest with the settings' fingerprint, and parts that are whole or absent.

    Raises:
        RunFolderError: the folder holds a grid with other settings (``replace=True`` writes over it), or
            cannot be written.
    """

    def __init__(self, path: Path, settings: dict[str, Any], replace: bool = False) -> None:
        self.path, self.settings = path, settings
        self.fingerprint = fingerprint(settings)
        with writing(f"folder {str(path)!r}"):
            path.mkdir(parents=True, exist_ok=True)
        manifest = path / MANIFEST
        if manifest.exists() and not replace:
            before = json.loads(manifest.read_text(encoding="utf-8"))
            if before.get("fingerprint") != self.fingerprint:
                require(f"folder {str(path)!r}", before.get("settings", {}), settings, "grid", "give another folder")
            return
        for stale in path.glob("part-*.parquet"):
            stale.unlink()
        self._manifest(finished=False)

    def done(self) -> tuple[set[int], dict[str, np.ndarray]]:
        """Pairs that are finished, and arrays that hold them."""
        arrays = _empty(self.settings)
        return _read_parts(self.path, arrays), arrays

    def add(
        self,
        pairs: Sequence[int],
        values: np.ndarray,
        clean: np.ndarray,
        corrupted: np.ndarray,
        null: np.ndarray | None,
    ) -> None:
        """Commit a batch of pairs: ``values [direction, site, block, position, batch]`` and what belongs to them."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        numbers = np.asarray(list(pairs))
        columns: dict[str, list[np.ndarray]] = {name: [] for name in ("kind", *AXES, "draw", "value")}

        def rows(kind: str, array: np.ndarray, axes: Sequence[str]) -> None:
            where = [axis.reshape(-1) for axis in np.indices(array.shape)]
            count = array.size
            given = dict(zip(axes, where, strict=True))
            given["pair"] = numbers[given["pair"]]
            columns["kind"].append(np.full(count, kind, dtype=object))
            for name in (*AXES, "draw"):
                columns[name].append(given.get(name, np.zeros(count)).astype(np.int32))
            columns["value"].append(array.reshape(-1).astype(np.float64))

        rows("patched", values, AXES)
        rows("clean", clean, ("pair",))
        rows("corrupted", corrupted, ("pair",))
        if null is not None:
            rows("null", null, ("draw", *AXES))
        table = pa.table({name: np.concatenate(pieces) for name, pieces in columns.items()})
        with replacing(self.path / f"part-{numbers[0]:06d}.parquet") as beside:
            pq.write_table(table, beside)

    def is_finished(self) -> bool:
        """Whether :meth:`finish` was called, by this run or an earlier one."""
        return bool(json.loads((self.path / MANIFEST).read_text(encoding="utf-8")).get("finished"))

    def finish(self, grid: PatchGrid) -> None:
        """Write what the run found out about itself."""
        self._manifest(finished=True, engine=grid.engine, reason=grid.reason, verification=dict(grid.verification))

    def _manifest(self, **more: Any) -> None:
        text = json.dumps({"fingerprint": self.fingerprint, "settings": self.settings, **more}, indent=1)
        write_atomic(self.path / MANIFEST, text)
