"""What an adapter grid found, and its folder: whole batches are kept, so that a stopped run continues."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RunFolderError
from ..storage.commit import write_atomic
from ..storage.pieces import Pieces
from ..storage.tables import save_table
from .grid import GridFolder, PatchGrid

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "adapter.json"
PERCEPTION = "perception.csv"
CELLS = "adapter_cells.csv"
MEMBERS = ("refusal", "over_refusal")
"""The grids of the harmful and of the harmless member of a pair."""


@dataclass
class AdapterGrid:
    """What an adapter grid found.

    Attributes:
        refusal: the metric on the harmful member of each pair; over_refusal: on the harmless one.  Their axes: site
            (``adapter`` is everything in a block, ``adapter.attn`` and ``adapter.mlp`` a part of it, ``adapter.vision``
            ... what stands outside the blocks), block, and as ``position`` the span: ``block`` for the block alone,
            ``from below`` up to it, ``from above`` down to it, ``window of 5`` beginning there.
        perception: one row per cell: AUROC of a probe for harm refitted there on the probed block's output (``auroc``,
            ``low``, ``high``), and its change from the model that the direction starts from.
        endpoints: how far no part on is from the base model and all on from the trained one, in logits, and how far
            these two are apart.
        record: of the adapter; units: how many of its parts stand where; meta: settings and versions of the run.
    """

    refusal: PatchGrid
    over_refusal: PatchGrid
    perception: pd.DataFrame = field(repr=False)
    endpoints: Mapping[str, float]
    record: Mapping[str, Any] = field(repr=False)
    units: Mapping[str, int]
    meta: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def summary(self, level: float = 0.05, seed: int = 0) -> pd.DataFrame:
        """Cells of both grids (:meth:`~.grid.PatchGrid.summary`), a column ``on`` naming the prompts."""
        import pandas as pd

        tables = []
        for name, kind in (("refusal", "harmful"), ("over_refusal", "harmless")):
            table = getattr(self, name).summary(level, seed=seed)
            table = table[table["pairs"] > 0].rename(columns={"position": "span"})
            table.insert(0, "on", kind)
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def curve(self, span: str, direction: str, site: str = "adapter", on: str = "refusal") -> np.ndarray:
        """The metric by block, ``[block, pair]``; NaN where a cell does not exist."""
        grid: PatchGrid = getattr(self, on)
        at = grid.directions.index(direction), grid.sites.index(site), grid.positions.index(span)
        return grid.values[at[0], at[1], :, at[2]]

    @classmethod
    def load(cls, folder: str | Path) -> AdapterGrid:
        """Read a finished grid back; raises :class:`RunFolderError` where it is missing or unfinished."""
        import pandas as pd

        path = Path(folder)
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            perception = pd.read_csv(path / PERCEPTION)
        except (OSError, ValueError) as error:
            raise RunFolderError(f"folder {str(path)!r} holds no finished adapter grid: {error}") from error
        refusal, over_refusal = (PatchGrid.load(path / name) for name in MEMBERS)
        told = (manifest[name] for name in ("endpoints", "record", "units", "meta"))
        return cls(refusal, over_refusal, perception, *told)


@dataclass
class Found:
    """One batch of pairs: of both members, and what each configuration's probed block gave."""

    values: np.ndarray  # [member, direction, site, block, span, n]
    nulls: np.ndarray  # [member, draw, direction, site, block, span, n]
    ends: np.ndarray  # [member, 2, n]: base, trained
    states: np.ndarray  # [config, member, n, d] float32


class AdapterFolder:
    """The folder of one adapter grid: a grid per member, the probed states of batches until the end, ``adapter.json``.

    Raises:
        RunFolderError: the folder holds another grid.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.states = Pieces(path / "states")
        self.grids = [
            GridFolder(path / name, {**settings, "meta": {**settings["meta"], "prompts": name}}) for name in MEMBERS
        ]

    @property
    def finished(self) -> bool:
        """Whether the last file was written."""
        return (self.path / MANIFEST).is_file()

    def restore(self, whole: Found) -> set[int]:
        """Fill in what finished batches left; returns their pairs."""
        done: set[int] | None = None
        for member, grid in enumerate(self.grids):
            pairs, arrays = grid.done()
            done = pairs if done is None else done & pairs
            whole.values[member], whole.nulls[member] = arrays["patched"], arrays["null"]
            whole.ends[member] = arrays["corrupted"], arrays["clean"]
        kept: set[int] = set()
        for name in sorted(self.states.names()):
            piece = self.states.get(name)
            assert piece is not None
            whole.states[:, :, piece.facts["pairs"]] = piece.arrays["states"]
            kept |= set(piece.facts["pairs"])
        return (done or set()) & kept

    def add(self, batch: Sequence[int], found: Found) -> None:
        """Commit a batch; it counts when all its files are there."""
        self.states.put(f"{batch[0]:06d}", {"states": found.states}, {"pairs": [int(pair) for pair in batch]})
        for member, grid in enumerate(self.grids):
            base, trained = found.ends[member]
            null = found.nulls[member] if found.nulls.shape[1] else None
            grid.add(batch, found.values[member], trained, base, null)

    def finish(self, grid: AdapterGrid) -> None:
        """Write what the run found, ``adapter.json`` last; the states are no longer needed."""
        for own, made in zip(self.grids, (grid.refusal, grid.over_refusal), strict=True):
            own.finish(made)
        save_table(self.path / CELLS, grid.summary())
        save_table(self.path / PERCEPTION, grid.perception)
        told = {"endpoints": grid.endpoints, "record": grid.record, "units": grid.units, "meta": grid.meta}
        write_atomic(self.path / MANIFEST, json.dumps(told, indent=1))
        self.states.clear()
