"""The sweep: one walk along the whole line, from a model and a data set to figures.

Load, then each stage in its order (:func:`lvlm_lens.stages.stages`): read, locate, measure, patch, SASA, defences; then
their figures, and ``result.json``.  Every stage continues what it kept in the run folder.  All randomness (folds,
shuffles, bootstrap, twin, the choice of a limited set) comes from one seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import SweepConfig, parse_blocks
from .errors import RunFolderError
from .locate.roles import LayerRoles
from .models.positions import Positions
from .progress import telling
from .provenance import environment
from .resultschema import read_result
from .stages import stages
from .stages.inputs import claim_folder, describe_data, load_inputs
from .stages.measuring import parse_measures
from .stages.records import SCHEMA, result_schema
from .stages.stage import Run, run_stage, silent
from .stages.summary import Block, Line, as_html, as_text
from .stats.curve import Curve
from .storage.commit import write_atomic
from .storage.runfolder import RunFolder
from .storage.tables import save_table

Tell = Callable[[str, int, int], None]
"""Called with (stage, samples done, samples in all)."""


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep: its folder and what ``result.json`` holds.

    ``SweepResult.load(folder)`` opens it again; ``curves`` and ``roles`` are objects, ``data`` is the
    plain record.
    """

    folder: Path
    data: dict[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> SweepResult:
        """Open a run folder; raises :class:`RunFolderError` where there is no finished sweep, or a damaged one."""
        folder = Path(folder)
        file = folder / "result.json"
        if not file.is_file():
            raise RunFolderError(f"{str(folder)!r} holds no result.json; run the sweep there first")
        return cls(folder, read_result(file, SCHEMA))

    @property
    def curves(self) -> dict[str, Curve]:
        """Curves by name."""
        return {row["name"]: Curve.from_dict(row) for row in self.data["curves"]}

    @property
    def roles(self) -> LayerRoles:
        """The roles."""
        return LayerRoles.from_dict(self.data["roles"])

    def summary(self) -> list[Block]:
        """What was found, stage by stage: the same on the terminal, in the report and in a notebook."""
        model, data = self.data["model"], self.data["dataset"]
        blocks: list[Block] = [Line(f"{model['name']} on {data['name']}: {data['samples']} items")]
        for stage in stages():
            blocks += stage.summary(self.data)
        return blocks

    def __str__(self) -> str:
        return as_text(self.summary())

    def _repr_html_(self) -> str:
        return as_html(self.summary())

    def __repr__(self) -> str:
        return f"SweepResult({str(self.folder)!r}: {self.roles!r})"


def run_sweep(config: SweepConfig, progress: Tell | None = None, command: list[str] | None = None) -> SweepResult:
    """Run (or continue) a sweep and write its folder.

    Args:
        config: what to run; see :class:`~lvlm_lens.config.SweepConfig`.
        progress: progress callback.
        command: the words of the command line, for the record.

    Returns:
        :class:`SweepResult`.
    """
    progress = progress or silent
    import yaml

    start, cpu = time.perf_counter(), time.process_time()
    Positions.parse(config.positions)
    parse_measures(config.measures)
    RunFolder(config.folder)  # a folder that cannot be written is said before anything is loaded
    model, data = load_inputs(config)
    parse_blocks(config.blocks, model.n_blocks)
    folder = claim_folder(config.folder, SCHEMA, config, model, data)
    write_atomic(folder.path / "config.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False))
    run = Run(model, data, folder.path, config, config.seed, config.batch_size, progress)
    run.timings["load"], run.processor["load"] = time.perf_counter() - start, time.process_time() - cpu
    line = stages()
    parts: dict[str, Any] = {}
    with telling(progress):
        for stage in line:
            parts |= run_stage(stage, run)
        with run.timed("figures"):
            figures = [figure for stage in line for figure in stage.figures(run)]
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "model": model.provenance(),
        "dataset": describe_data(config, data, run.broken),
        "config": config.to_dict(),
        "curves": [curve.to_dict() for curve in run.curves.values()],
        **parts,
        "notes": run.notes,
        "figures": figures,
        "environment": environment(config.seed, command),
        "timings": {name: round(seconds, 3) for name, seconds in run.timings.items()},
        "processor_seconds": {name: round(seconds, 3) for name, seconds in run.processor.items()},
    }
    _write_tables(folder.path, run.curves)
    folder.write_json("result.schema.json", result_schema())
    folder.write_json("result.json", result)
    return SweepResult(folder.path, result)


def _write_tables(folder: Path, curves: Mapping[str, Curve]) -> None:
    import pandas as pd

    frames = [curve.to_dataframe() for curve in curves.values()]
    save_table(folder / "curves.parquet", pd.concat(frames, ignore_index=True))
