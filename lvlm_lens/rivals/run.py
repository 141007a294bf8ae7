"""The whole comparison in a run folder: read, ask, tabulate, draw.

The same command continues a run that was stopped: evidence is kept in shards, every further reading in its own file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import SweepConfig
from ..data import Sample
from ..errors import LensError
from ..plots.rivals import plot_rivals
from ..plots.theme import save_figure
from ..progress import stage
from ..provenance import environment
from ..stages.inputs import describe_data, load_inputs, run_identity
from ..stages.reading import gather_resumable
from ..storage.runfolder import RunFolder
from ..storage.tables import save_table
from .bench import Rival, run_rivals
from .planted import planted_row
from .procedure import Procedure
from .read import read_all
from .registry import NOT_FOUND

SCHEMA = "lvlm-lens/rivals/1"


@dataclass(frozen=True)
class RivalsResult:
    """A finished comparison: its folder and what ``rivals.json`` holds."""

    folder: Path
    data: dict[str, Any]


def compare_rivals(
    config: SweepConfig,
    procedures: Sequence[Procedure],
    draws: int = 40,
    command: list[str] | None = None,
) -> RivalsResult:
    """Run (or continue) the comparison and write its folder.

    Args:
        config: model, data and run settings; blocks and positions are always all blocks at the last prompt token.
        procedures: which, in order.
        draws: halves of the groups for the intervals, and shuffles of the labels.
        command: the command line, for the record.

    Writes ``rivals.json`` (everything), ``rivals.csv`` (one line a claim), ``values.parquet`` (one row a claim and
    block) and the figure ``rivals``.
    """
    config = replace(config, blocks=None, positions="last")
    out = Path(config.out) if config.out is not None else config.folder.with_name(config.folder.name + "-rivals")
    folder = RunFolder(out)
    model, data = load_inputs(config)
    names = [procedure.name for procedure in procedures]
    folder.claim({**run_identity(SCHEMA, config, model, data), "rivals": names, "draws": draws})
    broken: dict[str, str] = {}

    def on_error(sample: Sample, error: LensError) -> None:
        broken[sample.id] = str(error)

    with stage("reading"):
        evidence = gather_resumable(model, data, folder.path / "activations", config, on_error)
    wanted = {name for procedure in procedures for name in procedure.reads}
    readings = read_all(model, evidence, data.pairs(), folder.path / "readings", config.batch_size, config.seed, wanted)
    rows = run_rivals(readings, procedures, draws, config.seed)
    table = [{**row.to_dict(), "constructed": constructed(row.name)} for row in rows]
    result = {
        "schema": SCHEMA,
        "model": model.provenance(),
        "n_blocks": readings.depth,
        "dataset": describe_data(config, data, broken),
        "config": config.to_dict(),
        "draws": draws,
        "rivals": table,
        "not_found": dict(NOT_FOUND),
        "environment": environment(config.seed, command),
    }
    folder.write_json("rivals.json", result)
    _write_tables(folder.path, rows)
    title = f"Claims about where safety lives: {model.name} on {config.dataset}, {len(readings)} items"
    save_figure(plot_rivals(table, readings.depth, title), folder.path, "rivals")
    return RivalsResult(folder.path, result)


def constructed(name: str) -> dict[str, Any]:
    """What the recorded constructed models say of a procedure: at many and at few pairs, weak and strong."""
    return {
        "many_pairs": planted_row(name),
        "few_pairs": planted_row(name, largest=False),
        "weak": planted_row(name, 1.5),
        "strong": planted_row(name, 4.0),
    }


def _write_tables(folder: Path, rows: Sequence[Rival]) -> None:
    import pandas as pd

    save_table(folder / "rivals.csv", pd.DataFrame([row.line for row in rows]))
    values = [
        {"rival": row.name, "block": block, "value": value, "unit": row.unit}
        for row in rows
        if len(row.values) == len(row.blocks)
        for block, value in zip(row.blocks, row.values, strict=True)
    ]
    save_table(folder / "values.parquet", pd.DataFrame(values, columns=["rival", "block", "value", "unit"]))
