"""``adapter_grid``: into which blocks a training wrote.

An adapter is a change of weights that can be taken apart.  Switched *on* in the base model, a part shows what it is
sufficient for (denoising); switched *off* in the trained one, what it is necessary for (noising).  Parts are single
blocks, windows, and ranges that grow from below and from above, of everything in a block or of its attention or MLP
alone; the vision tower and the projector are parts of their own.

The result has the form of activation patching (:class:`~.grid.PatchGrid`): the trained model stands where the clean
prompt stands there, the base where the corrupted one does, an effect of 1 is the whole way from the one to the other.
There are two grids over the same pairs, ``refusal`` on the harmful members and ``over_refusal`` on the harmless ones,
and beside them what a probe can still tell of harm in each cell (``perception``).

In every call two things are held against plain forwards of PEFT that share no code with this room, on the processor's
own output: no part on is the base model, all on is the trained model.  Cells that skip blocks are compared with whole
forwards (:mod:`.adapter_runs`).  [own]
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data import Pair
from ..errors import DataError, NumericalError, RunFolderError, SiteError, UsageError, near_matches
from ..lens import LVLM
from ..machine import clock
from ..models.batching import in_batches
from ..progress import part, step
from ..stats.choice import fold_curve
from ..stats.crossfit import Settings, out_of_fold
from ..stats.resampling import Resampling, group_folds
from ..storage.commit import write_atomic
from ..storage.pieces import Pieces
from ..storage.tables import save_table
from ..tolerance import allowed, difference
from .adapter_runs import Runs, compare_with_whole, plain_logits
from .adapter_switches import IN_BLOCK, OFF, ON, ON_BUT_RANDOM, OUTSIDE, RANDOM, Config, Switches, Unit, switchable
from .grid import GridFolder, PatchGrid
from .metrics import LogitsFunction, Metric, make_metric, numbers

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]
"""Called with (pairs done, pairs in all)."""
SITES = ("adapter", "adapter.attn", "adapter.mlp")
SPANS = ("block", "from below", "from above", "window")
DIRECTIONS = ("denoise", "noise")
MANIFEST = "adapter.json"
PERCEPTION = "perception.csv"
CELLS = "adapter_cells.csv"
_ENDPOINT_PAIRS = 2
"""Pairs on which both ends are held against plain forwards."""
_MEMBERS = ("refusal", "over_refusal")  # the harmful and the harmless member of a pair
_BATCH_BYTES = 2**30
_C, _REPLICATES = 0.01, 1000  # of the probe for harm, as in LinearProbe


@dataclass
class AdapterGrid:
    """What an adapter grid found.

    Attributes:
        refusal: the metric on the harmful member of each pair; over_refusal: on the harmless one.  Their axes: site
            (``adapter`` is everything in a block, ``adapter.attn`` and ``adapter.mlp`` a part of it, ``adapter.vision``
            ... what stands outside the blocks), block, and as ``position`` the span: ``block`` for the block alone,
            ``from below`` up to it, ``from above`` down to it, ``window of 5`` beginning there.
        perception: one row a cell: AUROC of a probe for harm refitted there on the probed block's output (``auroc``,
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
        refusal, over_refusal = (PatchGrid.load(path / name) for name in _MEMBERS)
        told = (manifest[name] for name in ("endpoints", "record", "units", "meta"))
        return cls(refusal, over_refusal, perception, *told)


@dataclass(frozen=True)
class _Cell:
    """A place in the grid, which units it changes, and the configuration that it means."""

    place: tuple[int, int, int, int]  # direction, site, block, span
    units: tuple[Unit, ...]
    config: Config


@dataclass
class _Plan:
    runs: Runs
    cells: list[_Cell]
    sites: tuple[str, ...]
    spans: tuple[str, ...]
    metric: Metric
    null: int
    seed: int
    verify: int
    say: Callable[[str], None] | None = None
    checked: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(DIRECTIONS), len(self.sites), self.runs.model.n_blocks, len(self.spans)

    def drawn(self, cell: _Cell) -> Config:
        """What a cell is held against: a random change in place of its own."""
        start, mode = ((OFF, RANDOM), (ON, ON_BUT_RANDOM))[cell.place[0]]
        return self.runs.switches.config(start, cell.units, mode)

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks that one prompt goes through in all configurations and nulls, and in as many whole forwards."""
        runs, whole = self.runs, self.runs.model.n_blocks
        every = [*self.configs, *(self.drawn(cell) for cell in self.cells for _ in range(self.null))]
        return sum(runs.blocks_of(config) for config in every), whole * len(every)

    @property
    def configs(self) -> list[Config]:
        """Every configuration once, the two ends first: cells of both directions may mean the same one."""
        switches = self.runs.switches
        ends = [switches.config(OFF), switches.config(ON)]
        return list(dict.fromkeys([*ends, *(cell.config for cell in self.cells)]))


def adapter_grid(
    model: LVLM,
    adapter: str | Path,
    pairs: Sequence[Pair],
    sites: str | Sequence[str] = "adapter",
    spans: str | Sequence[str] = SPANS,
    window: int = 5,
    metric: str | LogitsFunction | Metric = "refusal_log_odds",
    *,
    null: int = 1,
    probe_block: int = -1,
    exact: str = "auto",
    verify: int = 4,
    batch_size: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    out: str | Path | None = None,
) -> AdapterGrid:
    """Switch an adapter on and off part by part and measure what the model then says.

    Args:
        model: the base model, loaded without the adapter; it is given back as it was.
        adapter: the folder that PEFT wrote (LoRA and its kin, IA3, OFT).
        pairs: harmful prompts (``clean``) and harmless ones (``corrupted``); nothing is written from one into the
            other, so their lengths may differ.
        sites: any of adapter, adapter.attn, adapter.mlp.  The vision tower, the projector and the rest are added where
            the adapter has layers there.
        spans: any of block (alone), from below (all blocks up to it), from above (it and all blocks after it), window
            (it and those after it, ``window`` in number).
        window: see ``spans``.
        metric: of the logits of the first answer token, as in :func:`~.patch_grid.patch_grid`; the trained model
            stands for the clean prompt.
        null: random changes of the same size a cell (:mod:`.adapter_switches`); 0: none.
        probe_block: whose output at the last token the perception probe reads.
        exact: ``auto`` starts each forward at the first block that is changed; ``full`` never does.
        verify: cells compared with whole forwards in this call.
        batch_size: pairs a batch; by default as many as about 1 GiB of recorded residuals allows.
        seed: of the random changes, the folds of the probe and the choice of cells to verify.
        progress: called after each batch.
        say: called once, when the first prompts have run both ways, with how many forwards there are and how long they
            take at that speed.
        out: a folder that makes the run resumable.

    Raises:
        DataError: no pairs.
        SiteError: an unknown site, or one at which the adapter has no layer.
        NumericalError: one of the two ends is not what PEFT's own forward gives, or a cell is not what a whole
            forward gives.
        ModelError: the adapter does not fit or did not arrive.
        RunFolderError: ``out`` holds another grid.
    """
    if not len(pairs):
        raise DataError("no pairs were given; a data set's pairs() makes them where counterfactuals are named")
    if exact not in ("auto", "full") or window < 1 or null < 0:
        raise UsageError(f"exact={exact!r}, window={window}, null={null}; write auto or full, 1 or more, 0 or more")
    asked = (sites,) if isinstance(sites, str) else tuple(sites)
    wanted = (spans,) if isinstance(spans, str) else tuple(spans)
    for kind, given, known in (("site", asked, SITES), ("span", wanted, SPANS)):
        for name in given:
            if name not in known:
                listed = f"{', '.join(known)}{near_matches(name, known)}"
                raise SiteError(f"{kind} {name!r} is none that an adapter grid has; write one of {listed}")
    ends = [sample for pair in pairs[:_ENDPOINT_PAIRS] for sample in (pair.clean, pair.corrupted)]
    base_hash = model.weights_hash()
    base = plain_logits(model, model.model, ends)
    with switchable(model, adapter) as (wrapped, record):
        trained = plain_logits(model, wrapped, ends)
        switches = Switches(model)
        runs = Runs(model, switches, model.anatomy.block_index(probe_block), exact)
        cells, names, ranges = _cells(switches, model.n_blocks, asked, wanted, window)
        plan = _Plan(runs, cells, names, ranges, make_metric(metric, model), null, seed, verify, say)
        endpoints = _endpoints(plan, ends, base, trained)
        settings = _settings(plan, pairs, base_hash, record.sha256, exact)
        return _run(plan, pairs, settings, endpoints, record.to_dict(), batch_size, progress, out)


# -- before the runs -----------------------------------------------------------------------------


def _cells(
    switches: Switches, n_blocks: int, asked: Sequence[str], wanted: Sequence[str], window: int
) -> tuple[list[_Cell], tuple[str, ...], tuple[str, ...]]:
    """Every cell that changes something, the names along the site axis, and the spans."""
    units = switches.units
    outside = [part for part in OUTSIDE if any(u.part == part and u.block < 0 for u in units)]
    names = (*asked, *(f"adapter.{part}" for part in outside))
    every: dict[str, Callable[[int], range]] = {
        "block": lambda block: range(block, block + 1),
        "from below": lambda block: range(block + 1),
        "from above": lambda block: range(block, n_blocks),
        "window": lambda block: range(block, block + window if block <= n_blocks - window else 0),
    }
    ranges = {f"window of {window}" if name == "window" else name: every[name] for name in wanted}
    found = []
    for (s, name), (p, within), block in product(enumerate(names), enumerate(ranges.values()), range(n_blocks)):
        part = name.partition(".")[2]
        if part in outside:
            chosen = tuple(u for u in units if u.part == part and u.block < 0) if block == p == 0 else ()
        else:
            parts = (part,) if part else IN_BLOCK
            chosen = tuple(u for u in units if u.block in within(block) and u.part in parts)
        for d in range(len(DIRECTIONS)) if chosen else ():
            config = switches.config(OFF, chosen, ON) if d == 0 else switches.config(ON, chosen, OFF)
            found.append(_Cell((d, s, block, p), chosen, config))
    empty = [name for s, name in enumerate(names) if not any(cell.place[1] == s for cell in found)]
    if empty:
        raise SiteError(
            f"the adapter has no layer at {', '.join(empty)}; it has {', '.join(sorted({u.part for u in units}))}"
        )
    return found, names, tuple(ranges)


def _endpoints(plan: _Plan, prompts: Sequence[Any], base: torch.Tensor, trained: torch.Tensor) -> dict[str, float]:
    """Both ends as cells give them against plain forwards; raises where they are not the same."""
    runs = plan.runs
    found: dict[str, list[float]] = {"base": [], "trained": []}
    for mode, name, expected in ((OFF, "base", base), (ON, "trained", trained)):
        for row, prompt in enumerate(prompts):
            encoded = runs.model.encode([prompt], system="")
            recorded = runs.record(encoded)
            logits = runs.run(encoded, runs.switches.config(mode), recorded).logits[0].cpu()
            found[name].append(difference(logits, expected[row]))
    limit = allowed(runs.model.dtype, torch.stack([base, trained]))
    result = {
        "prompts": len(prompts), "base": max(found["base"]), "trained": max(found["trained"]),
        "apart": difference(base, trained), "tolerance": limit,
    }  # fmt: skip
    if not (result["base"] <= limit and result["trained"] <= limit):
        raise NumericalError(
            f"the adapter's ends are not what plain forwards give: nothing on is {result['base']:.2e} from the base "
            f"model and all on {result['trained']:.2e} from the trained one, where {limit:.2e} is allowed"
        )
    if not result["apart"] > 0:
        raise NumericalError("the adapter changes no logit of these prompts, so there is nothing to take apart")
    return result


def _settings(plan: _Plan, pairs: Sequence[Pair], weights: str, adapter: str, exact: str) -> dict[str, Any]:
    words = "\0".join(pair.clean.text + "\1" + pair.corrupted.text for pair in pairs)
    model = plan.runs.model
    return {
        "directions": list(DIRECTIONS),
        "sites": list(plan.sites),
        "blocks": list(range(model.n_blocks)),
        "positions": list(plan.spans),
        "pairs": [[pair.clean.id, pair.corrupted.id] for pair in pairs],
        "groups": [pair.group or pair.clean.id for pair in pairs],
        "window": 1,
        "metric": plan.metric.name,
        "nulls": ["random"] * plan.null,
        "meta": {
            "model": model.name,
            "weights": weights,
            "adapter": adapter,
            "dtype": str(model.dtype).removeprefix("torch."),
            "probe_block": plan.runs.probe_block,
            "seed": plan.seed,
            "exact": exact,
            "words": hashlib.sha256(words.encode()).hexdigest(),
        },
    }


# -- the runs ------------------------------------------------------------------------------------


@dataclass
class _Found:
    """One batch of pairs: of both members, and what each configuration's probed block gave."""

    values: np.ndarray  # [member, direction, site, block, span, n]
    nulls: np.ndarray  # [member, draw, direction, site, block, span, n]
    ends: np.ndarray  # [member, 2, n]: base, trained
    states: np.ndarray  # [config, member, n, d] float32


def _run(
    plan: _Plan,
    pairs: Sequence[Pair],
    settings: dict[str, Any],
    endpoints: dict[str, float],
    record: dict[str, Any],
    batch_size: int | None,
    progress: Progress | None,
    out: str | Path | None,
) -> AdapterGrid:
    home = None if out is None else _Folder(Path(out), settings)
    if home is not None and home.finished:
        return AdapterGrid.load(home.path)
    model, configs, count = plan.runs.model, plan.configs, len(pairs)
    whole = _Found(
        np.full((2, *plan.shape, count), np.nan),
        np.full((2, plan.null, *plan.shape, count), np.nan),
        np.full((2, 2, count), np.nan),
        np.zeros((len(configs), 2, count, model.anatomy.d_model), np.float32),
    )
    done = set() if home is None else home.restore(whole)
    finished = len(done)
    todo = _batches(pairs, [n for n in range(count) if n not in done], batch_size or _fitting(model, pairs))
    samples = [pair.clean for pair in pairs]

    def work(rows: list[int]) -> _Found:
        with part(finished / count, (finished + len(rows)) / count):
            return _batch(plan, pairs, rows, configs, count - finished)

    for batch, found in in_batches(samples, count, work, todo):
        for name in ("values", "nulls", "ends", "states"):
            axis = -2 if name == "states" else -1
            np.moveaxis(getattr(whole, name), axis, 0)[batch] = np.moveaxis(getattr(found, name), axis, 0)
        if home is not None:
            home.add(batch, found)
        finished += len(batch)
        if progress is not None:
            progress(finished, count)
    grids = [_grid(plan, whole, member, settings) for member in range(2)]
    perception, why = _perception(plan, whole.states, settings["groups"])
    meta = {
        **settings["meta"],
        "blocks_run": plan.runs.blocks_run,
        "blocks_whole": plan.runs.blocks_whole,
        **({} if why is None else {"no_perception": why}),
    }
    units: dict[str, int] = {}
    for unit in plan.runs.switches.units:
        units[unit.part] = units.get(unit.part, 0) + 1
    grid = AdapterGrid(grids[0], grids[1], perception, endpoints, record, units, meta)
    if home is not None:
        home.finish(grid)
    return grid


def _batches(pairs: Sequence[Pair], left: Sequence[int], size: int) -> list[list[int]]:
    """Numbers of pairs, batch by batch: same numbers of pictures, words of similar length."""

    def kind(n: int) -> tuple[int, int]:
        return len(pairs[n].clean.images), len(pairs[n].corrupted.images)

    batches: list[list[int]] = []
    for n in sorted(left, key=lambda n: (*kind(n), len(pairs[n].clean.text), n)):
        if batches and len(batches[-1]) < size and kind(batches[-1][0]) == kind(n):
            batches[-1].append(n)
        else:
            batches.append([n])
    return batches


def _fitting(model: LVLM, pairs: Sequence[Pair]) -> int:
    """Pairs a batch: the two recorded forwards keep one residual a block and row."""
    tokens = model.encode(pairs[0].clean).length
    row = 2 * model.n_blocks * tokens * model.anatomy.d_model * torch.finfo(model.dtype).bits // 8
    return int(min(32, max(1, _BATCH_BYTES // row)))


def _batch(plan: _Plan, pairs: Sequence[Pair], batch: Sequence[int], configs: Sequence[Config], left: int) -> _Found:
    """Both members of some pairs; ``left`` pairs, these among them, are still to be run."""
    runs, metric = plan.runs, plan.metric
    rows = list(range(len(batch)))
    ran, total = 0, 2 * (len(configs) + plan.null * len(plan.cells))
    found = _Found(
        np.full((2, *plan.shape, len(batch)), np.nan),
        np.full((2, plan.null, *plan.shape, len(batch)), np.nan),
        np.full((2, 2, len(batch)), np.nan),
        np.zeros((len(configs), 2, len(batch), runs.model.anatomy.d_model), np.float32),
    )
    for member in range(2):
        encoded = runs.model.encode([(pairs[n].clean, pairs[n].corrupted)[member] for n in batch])
        start = clock(runs.model.device.type)
        recorded = runs.record(encoded)
        if plan.say is not None:
            each = (clock(runs.model.device.type) - start) / (2 * runs.model.n_blocks * len(batch))
            plan.say(_cost(plan, each, left))
            plan.say = None
        base, trained = recorded
        if not all(bool(torch.isfinite(end.logits).all()) for end in recorded):
            raise NumericalError("the prompts give NaN or infinity; run the model in float32 or bfloat16")
        metric.prepare(trained.logits, base.logits)
        found.ends[member] = [numbers(metric, end.logits, rows) for end in recorded]
        if plan.verify and not plan.checked:
            held = compare_with_whole(runs, encoded, configs, recorded, metric, plan.verify, plan.seed)
            plan.checked = {} if held is None else held.to_dict()
            if held is not None and held.wrong.any():
                raise NumericalError(
                    f"{int(held.wrong.sum())} of {len(held.wrong)} cells that skip blocks are not what whole forwards "
                    f"give (largest difference {held.difference.max():.2e}); run with exact='full' and report it"
                )
        by_config: dict[Config, np.ndarray] = {}
        for c, config in enumerate(configs):
            forward = runs.run(encoded, config, recorded)
            by_config[config] = numbers(metric, forward.logits, rows)
            found.states[c, member] = forward.states.cpu().numpy()
            ran += 1
            step(ran, total)
        for cell in plan.cells:
            found.values[(member, *cell.place)] = by_config[cell.config]
        for draw in range(plan.null):
            runs.switches.draw(plan.seed + draw)
            for cell in plan.cells:
                forward = runs.run(encoded, plan.drawn(cell), recorded)
                found.nulls[(member, draw, *cell.place)] = numbers(metric, forward.logits, rows)
                ran += 1
                step(ran, total)
    return found


def _cost(plan: _Plan, seconds: float, pairs: int) -> str:
    """How much there is to do and how long it takes, in words; ``seconds`` are of one block on one prompt."""
    run, whole = plan.blocks
    return (
        f"{len(plan.configs) + plan.null * len(plan.cells)} forwards of each of {2 * pairs} prompts, {run} blocks in "
        f"place of {whole}: about {max(1, round(2 * pairs * run * seconds / 60))} min at the speed of the first ones"
    )


def _grid(plan: _Plan, whole: _Found, member: int, settings: Mapping[str, Any]) -> PatchGrid:
    base, trained = whole.ends[member]
    reason = plan.runs.reason
    return PatchGrid(
        whole.values[member],
        trained,
        base,
        whole.nulls[member] if plan.null else None,
        DIRECTIONS,
        plan.sites,
        tuple(settings["blocks"]),
        plan.spans,
        tuple((a, b) for a, b in settings["pairs"]),
        tuple(settings["groups"]),
        1,
        plan.metric.name,
        "resumed" if reason is None else "full",
        reason or "each forward began at the first block that was changed",
        plan.checked or {"cells": 0, "max_abs_diff": None},
        {**settings["meta"], "prompts": _MEMBERS[member]},
        tuple(settings["nulls"]),
    )


# -- perception ----------------------------------------------------------------------------------


def _perception(plan: _Plan, states: np.ndarray, groups: Sequence[str]) -> tuple[pd.DataFrame, str | None]:
    """What a probe for harm can tell in every cell, and why not, where it cannot be fitted.

    The probe is refitted in each configuration, on the same folds of whole groups of pairs; the intervals of the AUROC
    and of its change redraw the same groups.
    """
    import pandas as pd

    configs = plan.configs
    columns = ["direction", "site", "block", "span", "auroc", "low", "high", "change", "change_low", "change_high"]
    labels = np.repeat([1, 0], states.shape[2])
    rows = states.reshape(len(configs), -1, states.shape[-1])  # [config, sample, d]
    names = np.tile(groups, 2)
    try:
        fold = group_folds(labels, names, seed=plan.seed)
    except DataError as error:
        return pd.DataFrame(columns=columns), str(error)
    found = [out_of_fold(part, labels[:, None], fold, [_C], Settings())[0][:, 0, 0] for part in rows]
    weights = Resampling(names, _REPLICATES, plan.seed).weights()
    curve = fold_curve("perception", range(len(configs)), np.stack(found, 1), labels, fold, weights, ())
    at = {config: c for c, config in enumerate(configs)}
    assert curve.replicates is not None
    table = []
    for cell in plan.cells:
        d, s, block, p = cell.place
        c, start = at[cell.config], d  # the two ends are the first two configurations: base, trained
        apart = np.quantile(curve.replicates[:, c] - curve.replicates[:, start], [0.025, 0.975])
        place = (DIRECTIONS[d], plan.sites[s], block, plan.spans[p])
        own = (curve.value[c], curve.low[c], curve.high[c], curve.value[c] - curve.value[start])
        table.append([*place, *map(float, (*own, *apart))])
    return pd.DataFrame(table, columns=columns), None


# -- disk ----------------------------------------------------------------------------------------


class _Folder:
    """The folder of one adapter grid: a grid a member, the probed states of batches until the end, ``adapter.json``.

    Raises:
        RunFolderError: the folder holds another grid.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.states = Pieces(path / "states")
        self.grids = [
            GridFolder(path / name, {**settings, "meta": {**settings["meta"], "prompts": name}}) for name in _MEMBERS
        ]

    @property
    def finished(self) -> bool:
        """Whether the last file was written."""
        return (self.path / MANIFEST).is_file()

    def restore(self, whole: _Found) -> set[int]:
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

    def add(self, batch: Sequence[int], found: _Found) -> None:
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
