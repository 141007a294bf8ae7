"""Several runs side by side: do their roles begin at another depth, peak elsewhere, or reach another height?

Depth is relative (:mod:`lvlm_lens.depth`), so models of different size can be compared.  Each difference is tested by
a bootstrap over the groups of the data: *paired*, replicate by replicate, where both runs measured the same items with
the same seed (checkpoints of one model, a defended and an undefended one), else with independent replicates.  The
p-value is two-sided and counts ties against the difference; a block is a stretch of depth, ``block / blocks`` to
``(block + 1) / blocks``, and two places are tied where their stretches overlap, so that models of different size are
not told apart by their resolution.  [own]  False discovery (Benjamini & Hochberg) is controlled over all tests of the
comparison.  Where a role is not found in one of the runs its onset is not tested: there is none.

Replicates are read from ``measures/roles.safetensors`` of each run folder; a run without it is drawn and not tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from .depth import relative_depth
from .errors import RunFolderError, UsageError
from .inference import false_discovery
from .locate.roles import LayerRoles, floor_of, onsets
from .measures.draws import load_curves
from .measures.spec import ROLE_NAMES
from .stats.curve import Curve
from .stats.groups import paired_bootstrap
from .stats.onset import HALF
from .storage.runfolder import RunFolder
from .sweep import SweepResult

SCHEMA = "lvlm-lens/compare/1"

QUANTITIES = {
    "onset": "relative depth of the onset",
    "peak": "relative depth of the best block",
    "value": "value at the best block",
}


@dataclass(frozen=True)
class Run:
    """One run: its name in the comparison, curves (with draws where they are kept), roles and result."""

    name: str
    folder: Path
    curves: dict[str, Curve] = field(repr=False)
    roles: LayerRoles = field(repr=False)
    data: dict[str, Any] = field(repr=False)
    drawn: bool = True

    @property
    def depth(self) -> int:
        """Blocks of the model."""
        return int(self.data["model"]["blocks"])


@dataclass(frozen=True)
class Comparison:
    """Runs and the tests between them.

    ``tests`` has one row per pair of runs, role and quantity: ``difference`` (second minus first), ``low``, ``high``,
    ``p_value``, ``q_value``, ``paired``; or ``reason`` where it was not tested.
    """

    runs: tuple[Run, ...]
    tests: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        runs = [
            {
                "name": run.name, "folder": str(run.folder), "model": run.data["model"], "roles": run.roles.to_dict(),
                "dataset": {key: run.data["dataset"][key] for key in ("name", "hash", "samples")},
                "consensus": run.data.get("consensus", {}), "replicates_kept": run.drawn,
            }
            for run in self.runs
        ]  # fmt: skip
        return {"schema": SCHEMA, "runs": runs, "tests": list(self.tests), "notes": list(self.notes)}


def open_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Open finished runs.

    Raises:
        UsageError: fewer than two, or one given twice.
        RunFolderError: a folder without a finished sweep.
    """
    paths = [Path(folder).expanduser() for folder in folders]
    if len(paths) < 2:
        raise UsageError(f"{len(paths)} run given; compare needs at least two run folders")
    real = [path.resolve() for path in paths]
    twice = [str(path) for number, path in enumerate(paths) if real[number] in real[:number]]
    if twice:
        raise UsageError(f"run {twice[0]!r} is given twice; a run does not differ from itself")
    runs: list[Run] = []
    for path in paths:
        result = SweepResult.load(path)
        kept = path / "measures" / "roles.safetensors"
        curves = load_curves(kept)[0] if kept.is_file() else result.curves
        name = path.resolve().name
        if sum(other.name == name for other in real) > 1:
            name = f"{path.resolve().parent.name}/{name}"
        missing = [key for key in ("perception", "expression") if key not in curves]
        if missing:
            raise RunFolderError(f"{str(path)!r} holds no curve of {missing[0]}; run the sweep there again")
        runs.append(Run(name, path, curves, result.roles, result.data, kept.is_file()))
    return runs


def compare_runs(folders: Sequence[str | Path], confidence: float = 0.95, seed: int = 0) -> Comparison:
    """Test every pair of runs.

    Args:
        folders: run folders of finished sweeps.
        confidence: of the intervals.
        seed: of the pairing of independent replicates.
    """
    runs = open_runs(folders)
    notes = []
    if len({run.data["dataset"]["hash"] for run in runs}) > 1:
        notes.append("the runs measured different items, so a difference can come from the data as well as the model")
    if len({run.data["config"]["positions"] for run in runs}) > 1:
        notes.append("the runs read the residual stream at different positions")
    notes += [f"{run.name}: no replicates are kept in its folder; drawn, not tested" for run in runs if not run.drawn]
    rows = [
        _test(first, second, role, quantity, confidence, seed)
        for first, second in combinations(runs, 2)
        for role in ROLE_NAMES
        for quantity in QUANTITIES
    ]
    tested = [row for row in rows if "reason" not in row]
    adjusted: Sequence[float] = false_discovery([row["p_value"] for row in tested]).tolist() if tested else []
    for row, q_value in zip(tested, adjusted, strict=True):
        row["q_value"] = float(q_value)
    return Comparison(tuple(runs), tuple(rows), tuple(notes))


def _same_draws(first: Run, second: Run, a: Curve, b: Curve) -> bool:
    """Whether replicate r of one was drawn from the same groups as replicate r of the other."""
    assert a.replicates is not None and b.replicates is not None
    settings = ("seed", "replicates", "limit")
    return (
        first.data["dataset"]["hash"] == second.data["dataset"]["hash"]
        and all(first.data["config"][key] == second.data["config"][key] for key in settings)
        and a.n == b.n
        and len(a.replicates) == len(b.replicates)
    )


def _test(first: Run, second: Run, role: str, quantity: str, confidence: float, seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "first": first.name, "second": second.name, "role": role, "quantity": quantity,
        "what": QUANTITIES[quantity],
    }  # fmt: skip
    for run in (first, second):
        if role not in run.curves:
            return row | {"reason": f"{run.name}: {run.roles[role].reason or 'not measured'}"}
        if run.curves[role].replicates is None:
            return row | {"reason": f"{run.name}: no replicates are kept in its folder"}
        if quantity != "value" and not run.roles[role].found:
            return row | {"reason": f"{run.name}: {role} not found"}
    a, b = first.curves[role], second.curves[role]
    if quantity == "value" and a.unit != b.unit:
        return row | {"reason": f"units differ: {a.unit} and {b.unit}"}
    onset_errors = quantity == "onset" and a.rise is not None and b.rise is not None  # drawn for each run alone
    paired = _same_draws(first, second, a, b) and not onset_errors
    own = [_quantity(run, role, quantity) for run in (first, second)]
    drawn = [_replicates(run, role, quantity) for run in (first, second)]
    if not paired:
        rng = np.random.default_rng(seed)
        size = min(map(len, drawn))
        drawn = [values[rng.permutation(len(values))[:size]] for values in drawn]
    known = np.isfinite(drawn[1] - drawn[0])
    if known.mean() < 0.5:
        return row | {"reason": "in most replicates one of the two has none"}
    first_drawn, second_drawn = (values[known] for values in drawn)
    found = paired_bootstrap(second_drawn, first_drawn, confidence)
    if quantity != "value":
        found["p_value"] = _apart(first_drawn, second_drawn, first.depth, second.depth)
    return row | {
        "paired": bool(paired), "first_value": own[0], "second_value": own[1], "difference": own[1] - own[0],
        "low": float(found["low"]), "high": float(found["high"]), "p_value": float(found["p_value"]),
        "undefined": float(1 - known.mean()), "replicates": int(known.sum()),
    }  # fmt: skip


def _apart(first: np.ndarray, second: np.ndarray, depth_first: int, depth_second: int) -> float:
    """Two-sided p-value of places in relative depth ``[replicate]``; overlapping stretches of depth are ties."""
    # the end of the block in which the (interpolated) place lies; rounding must not push a whole block up
    ends = [np.ceil(x * depth - 1e-9) / depth for x, depth in ((first, depth_first), (second, depth_second))]
    starts = [end - 1 / depth for end, depth in zip(ends, (depth_first, depth_second), strict=True)]
    later, earlier = (starts[1] >= ends[0] - 1e-9).sum(), (starts[0] >= ends[1] - 1e-9).sum()
    n = len(first)
    return float(min(1.0, 2 * min(1 + n - later, 1 + n - earlier) / (1 + n)))


def _quantity(run: Run, role: str, quantity: str) -> float:
    """The quantity of the run's own curve."""
    curve = run.curves[role]
    if quantity == "onset" and curve.rise is not None:
        return float(_depths(curve, curve.rise.at[HALF], run.depth))
    if quantity == "value" and curve.best is not None:
        return curve.best.value
    return float(_of(curve, curve.value[None], quantity, run.depth)[0])


def _replicates(run: Run, role: str, quantity: str) -> np.ndarray:
    """The quantity in every replicate, ``[replicate]``; NaN where there is none."""
    curve = run.curves[role]
    if quantity == "onset" and curve.rise is not None:
        return _depths(curve, curve.rise.draws[:, HALF], run.depth)
    if quantity == "value" and curve.best is not None and curve.best.replicates is not None:
        return curve.best.replicates
    assert curve.replicates is not None
    return _of(curve, curve.replicates, quantity, run.depth)


def _of(curve: Curve, values: np.ndarray, quantity: str, depth: int) -> np.ndarray:
    floor = floor_of(curve)
    if quantity == "value":
        return values[:, int(np.nanargmax(curve.value - floor))]
    at = onsets(values, floor)["onset_at" if quantity == "onset" else "peak"]
    return _depths(curve, at, depth)


def _depths(curve: Curve, at: Any, depth: int) -> np.ndarray:
    """Relative depths of positions in the list of blocks."""
    blocks = np.interp(at, np.arange(len(curve)), curve.blocks)
    return relative_depth(np.where(np.isfinite(at), blocks, np.nan), depth)


def write_comparison(comparison: Comparison, out: str | Path) -> Path:
    """``comparison.json`` and the figure, PNG and SVG, into a folder; returns it.

    Raises :class:`RunFolderError` where the folder belongs to something else.
    """
    from .plots.compare import plot_comparison
    from .plots.theme import save_figure

    folder = RunFolder(Path(out).expanduser())
    runs = [
        [str(run.folder), run.data["model"]["weights_hash"], run.data["dataset"]["hash"]] for run in comparison.runs
    ]
    folder.claim({"schema": SCHEMA, "runs": runs})
    shown = [(run.name, run.curves, run.roles, run.depth) for run in comparison.runs]
    save_figure(plot_comparison(shown, comparison.tests), folder.path, "comparison")
    folder.write_json("comparison.json", comparison.to_dict())
    return folder.path
