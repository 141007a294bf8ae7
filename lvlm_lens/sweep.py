"""The sweep: one walk along the whole line, from a model and a data set to figures.

load -> gather evidence (model, random-weight twin, backbone) -> locate -> measure -> patch -> SASA -> figures
-> result.json

Evidence is kept in the run folder in shards, so a run that was stopped continues at the shard where
it stopped; everything after it takes seconds and is done anew.  All randomness (folds, shuffles,
bootstrap, twin, the choice of a limited set) comes from one seed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import SweepConfig, parse_blocks
from .data import Dataset, Sample
from .errors import LensError, ModelError, RunFolderError, context
from .lens import LVLM
from .locate.curve import Curve
from .locate.evidence import Evidence
from .locate.locating import locate_roles, perceived_note
from .locate.probe import LinearProbe
from .locate.roles import LayerRoles
from .models.positions import Positions
from .progress import stage
from .provenance import environment
from .resultschema import read_result
from .stages.defending import defence_stage, table_stage
from .stages.drawing import draw_causal, draw_defenses, draw_figures
from .stages.drawing_measures import draw_measures
from .stages.exploring import explore_record
from .stages.inputs import describe_data, load_inputs, naming_left_out, run_identity, without_broken
from .stages.measuring import make_study, measure_stage, parse_measures, twin_lens
from .stages.patching import patch_stage
from .stages.reading import gather_resumable, read_backbone
from .storage.commit import write_atomic
from .storage.plain import plain
from .storage.runfolder import RunFolder

SCHEMA = "lvlm-lens/sweep/1"
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

    def __repr__(self) -> str:
        return f"SweepResult({str(self.folder)!r}: {self.roles!r})"


def run_sweep(config: SweepConfig, tell: Tell | None = None, command: list[str] | None = None) -> SweepResult:
    """Run (or continue) a sweep and write its folder.

    Args:
        config: what to run; see :class:`~lvlm_lens.config.SweepConfig`.
        tell: progress callback.
        command: the words of the command line, for the record.

    Returns:
        :class:`SweepResult`.
    """
    tell = tell or (lambda stage, done, total: None)
    timings: dict[str, float] = {}
    with _timed(timings, "load"):
        Positions.parse(config.positions)
        folder = RunFolder(config.folder)
        model, data = load_inputs(config)
        parse_blocks(config.blocks, model.n_blocks)
        names = parse_measures(config.measures)
        identity = run_identity(SCHEMA, config, model, data)
        folder.claim(identity)
        import yaml

        (folder.path / "config.yaml").write_text(yaml.safe_dump(config.to_dict(), sort_keys=False), encoding="utf-8")
    broken: dict[str, str] = {}

    def evidence_of(which: str, subject: LVLM, items: Dataset) -> Evidence:
        def on_error(sample: Sample, error: LensError) -> None:
            broken.setdefault(sample.id, str(error) if which == "model" else f"{which}: {error}")

        with _timed(timings, f"gather_{which}"), context(which):
            return gather_resumable(
                subject,
                items,
                folder.path / "activations" / which,
                config,
                on_error,
                lambda done, total: tell(f"reading the {which}", done, total),
            )

    evidence = evidence_of("model", model, data)
    read = without_broken(data, broken)
    twin = lens_of_twin = None
    no_twin: list[str] = []
    if config.twin:
        try:
            with model.random_twin(config.seed) as shuffled:
                twin, lens_of_twin = evidence_of("twin", shuffled, data), twin_lens(shuffled)
        except ModelError as error:  # quantised weights have none; the roles then say that they were not compared
            no_twin = [f"random-weight twin: not made: {error}"]
    backbone = read_backbone(config, model, data, evidence_of)
    with stage("locating"), _timed(timings, "locate"), naming_left_out(read):
        probe = LinearProbe(folds=config.folds, permutations=config.permutations, replicates=config.replicates)
        located = locate_roles(evidence, twin, probe=probe, random_state=config.seed)
    with _timed(timings, "measures"):
        kept = folder.path / "measures"
        study = make_study(model, evidence, located, twin, lens_of_twin, config.to_dict(), kept, tell)
        findings = measure_stage(study, names, kept, tell)
    causal: dict[str, Any] = {"done": False, "reason": "not asked for"}
    grid = report = None
    if config.pairs:
        with _timed(timings, "patch"), context("patching"):
            causal, grid = patch_stage(model, data, evidence, folder.path / "patch", config.pairs, config.seed, tell)
    sasa: dict[str, Any] = {"done": False, "reason": "not asked for"}
    if config.sasa:
        with _timed(timings, "sasa"), context("SASA"):
            kept = folder.path / "sasa"
            sasa, report = defence_stage(model, read, located.roles, config.seed, tell, config.batch_size, kept)
    defenses: dict[str, Any] = {"done": False, "reason": "not asked for"}
    table = None
    if config.defenses:
        with _timed(timings, "defenses"), context("defences"):
            kept = folder.path / "defenses"
            defenses, table = table_stage(model, read, report, config.seed, tell, config.batch_size, kept)
    with _timed(timings, "figures"):
        figures = draw_figures(folder.path, model, evidence, located, backbone, tell, findings)
        figures += draw_measures(folder.path, model.n_blocks, findings)
        figures += draw_causal(folder.path, model, data, grid, report, tell)
        figures += draw_defenses(folder.path, table)
    explored = explore_record(model, evidence, located, config.seed)
    write_atomic(folder.path / "explore.json", json.dumps(explored, separators=(",", ":"), allow_nan=False))
    curves = {**located.curves, **findings.curves()}
    result = {
        "schema": SCHEMA,
        "model": model.provenance(),
        "dataset": describe_data(config, data, broken),
        "config": config.to_dict(),
        "curves": [curve.to_dict() for curve in curves.values()],
        "roles": located.roles.to_dict(),
        "order_test": plain(located.order_test),
        "quadrants": list(located.quadrants),
        "perceived_note": perceived_note(located.roles.perception),
        "backbone": backbone,
        "trajectories": located.trajectories,
        **plain(findings.to_dict()),
        "causal": plain(causal),
        "sasa": plain(sasa),
        "defenses": plain(defenses),
        "notes": [*located.notes, *no_twin],
        "figures": figures,
        "environment": environment(config.seed, command),
        "timings": {name: round(seconds, 3) for name, seconds in timings.items()},
    }
    _write_tables(folder.path, curves)
    folder.write_json("result.json", result)
    return SweepResult(folder.path, result)


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[name] = timings.get(name, 0.0) + time.perf_counter() - start


def _write_tables(folder: Path, curves: Mapping[str, Curve]) -> None:
    import pandas as pd

    frames = [curve.to_dataframe() for curve in curves.values()]
    pd.concat(frames, ignore_index=True).to_parquet(folder / "curves.parquet", index=False)
