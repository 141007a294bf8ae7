"""``PatchGrid``: what a patch grid found, with its baselines, its null and its check; and its folder.

On disk a grid is ``grid.json`` (axes, settings, how exact it was) and Parquet parts in long form, one a batch of
pairs, each written to a temporary file, synced and renamed.  A run that was killed leaves only whole parts, and the
same command continues with the pairs that have none.  No pickle is read or written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RunFolderError
from ..inference import false_discovery
from ..stats.groups import bootstrap_mean, sign_flip_p

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "grid.json"
AXES = ("direction", "site", "block", "position", "pair")


@dataclass(frozen=True)
class Normalized:
    """Effects as a share of the gap between the two baselines.

    Attributes:
        values: ``[direction, site, block, position, pair]``; 0: as without the patch, 1: as the donor's prompt.
            NaN in dropped pairs.
        null: ``[draw, direction, site, block, position, pair]`` for random directions, or ``None``.
        dropped: numbers of the pairs whose baselines lie closer than ``min_gap``.
        min_gap: smallest ``|clean - corrupted|`` that was used.
    """

    values: np.ndarray
    null: np.ndarray | None
    dropped: tuple[int, ...]
    min_gap: float


@dataclass
class PatchGrid:
    """The metric in every cell of a grid of interventions.

    Attributes:
        values: the metric after the patch, float64 ``[direction, site, block, position, pair]``; NaN where a
            cell does not exist (a shorter question, ``image_features`` above block 0).
        clean, corrupted: the metric of the untouched prompts, ``[pair]``.
        null: the same as ``values`` for changes of the same size in random directions,
            ``[draw, direction, site, block, position, pair]``, or ``None``.
        directions, sites, blocks, positions: names along the axes; a block stands for the window it begins.
        pairs: ``(clean id, corrupted id)``; groups: of the pairs.
        window: number of blocks patched together; metric: its name.
        engine: ``resumed`` (only what a cell can change was computed) or ``full``; reason: why.
        verification: cells compared with plain forwards, the largest difference of logits, the tolerance.
        meta: settings, model and seeds.
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

    def summary(
        self, fdr: float = 0.05, confidence: float = 0.95, min_gap: float | None = None, seed: int = 0
    ) -> pd.DataFrame:
        """One row a cell of the grid: mean normalised effect, interval, p-value, and whether it survives.

        ``p_value`` is that of a sign-flip test over groups of the effect minus the random-direction null of the
        same cell and pair (minus 0 where no null was run); ``q_value`` is adjusted over the whole grid;
        ``survives`` needs ``q_value <= fdr`` and an effect larger than its null.
        """
        import pandas as pd

        normal = self.normalized(min_gap)
        cells = [(d, s, b, p) for d in self.directions for s in self.sites for b in self.blocks for p in self.positions]
        effects = normal.values.reshape(len(cells), -1)  # [cell, pair]
        null = np.zeros_like(effects) if normal.null is None else normal.null.mean(0).reshape(len(cells), -1)
        low, high = bootstrap_mean(effects, self.groups, confidence=confidence, seed=seed)
        p = sign_flip_p(effects - null, self.groups, seed=seed)
        q = false_discovery(p)
        count = np.isfinite(effects).sum(1)
        mean = np.divide(np.nansum(effects, 1), count, out=np.full(len(cells), np.nan), where=count > 0)
        null_mean = np.divide(np.nansum(null, 1), count, out=np.full(len(cells), np.nan), where=count > 0)
        frame = pd.DataFrame(cells, columns=["direction", "site", "block", "position"])
        frame["pairs"], frame["effect"], frame["low"], frame["high"] = count, mean, low, high
        frame["null"] = np.nan if normal.null is None else null_mean
        frame["p_value"], frame["q_value"] = p, q
        with np.errstate(invalid="ignore"):
            frame["survives"] = (q <= fdr) & (mean > null_mean)
        frame.attrs.update(dropped_pairs=len(normal.dropped), min_gap=normal.min_gap, fdr=fdr)
        return frame

    def survives(self, fdr: float = 0.05, **options: Any) -> np.ndarray:
        """Bool ``[direction, site, block, position]``: the cells whose effect survives its null and the FDR control."""
        return self.summary(fdr, **options)["survives"].to_numpy().reshape(self.values.shape[:-1])

    def mean_effect(self, min_gap: float | None = None) -> np.ndarray:
        """Mean normalised effect over pairs, ``[direction, site, block, position]``."""
        effects = self.normalized(min_gap).values
        count = np.isfinite(effects).sum(-1)
        return np.divide(np.nansum(effects, -1), count, out=np.full(count.shape, np.nan), where=count > 0)

    def to_dataframe(self) -> pd.DataFrame:
        """One row a cell and pair: axes, ids, baselines, patched metric and normalised effect."""
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
            "null": 0 if self.null is None else len(self.null),
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
            null=arrays["null"] if settings["null"] else None,
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
        )


def _empty(settings: Mapping[str, Any]) -> dict[str, np.ndarray]:
    shape = [len(settings[name]) for name in ("directions", "sites", "blocks", "positions", "pairs")]
    return {
        "patched": np.full(shape, np.nan),
        "null": np.full([settings["null"], *shape], np.nan),
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
        self.fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"folder {str(path)!r} cannot be made: {error}") from error
        manifest = path / MANIFEST
        if manifest.exists() and not replace:
            before = json.loads(manifest.read_text(encoding="utf-8"))
            if before.get("fingerprint") != self.fingerprint:
                old = before.get("settings", {})
                changed = sorted(key for key in {*settings, *old} if settings.get(key) != old.get(key))
                raise RunFolderError(
                    f"folder {str(path)!r} holds a grid with other settings ({', '.join(changed)}); give another folder"
                )
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
        temporary = self.path / f".part-{numbers[0]:06d}.tmp"
        pq.write_table(table, temporary)
        _commit(temporary, self.path / f"part-{numbers[0]:06d}.parquet")

    def finish(self, grid: PatchGrid) -> None:
        """Write what the run found out about itself."""
        self._manifest(finished=True, engine=grid.engine, reason=grid.reason, verification=dict(grid.verification))

    def _manifest(self, **more: Any) -> None:
        text = json.dumps({"fingerprint": self.fingerprint, "settings": self.settings, **more}, indent=1)
        temporary = self.path / f".{MANIFEST}.tmp"
        temporary.write_text(text, encoding="utf-8")
        _commit(temporary, self.path / MANIFEST)


def _commit(temporary: Path, final: Path) -> None:
    with temporary.open("rb") as handle:
        os.fsync(handle.fileno())
    temporary.replace(final)
