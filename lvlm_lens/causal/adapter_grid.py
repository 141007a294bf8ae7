"""``adapter_grid``: into which blocks a training wrote.

An adapter is a change of weights that can be taken apart.  Switched *on* in the base model, a part shows what it is
sufficient for (denoising); switched *off* in the trained one, what it is necessary for (noising).  Parts are single
blocks, windows, and ranges that grow from below and from above, of everything in a block or of its attention or MLP
alone; the vision tower and the projector are parts of their own.

The result has the form of activation patching (:class:`~.grid.PatchGrid`): the trained model stands where the clean
prompt stands there, the base where the corrupted one does, an effect of 1 is the whole way from the one to the other.
There are two grids over the same pairs, ``refusal`` on the harmful members and ``over_refusal`` on the harmless ones,
and beside them what a probe can still tell of harm in each cell (``perception``).

In every call two things are held against plain forwards of PEFT that share no code with this package, on the
processor's own output: no part on is the base model, all on is the trained model.  Cells that skip blocks are
compared with whole forwards (:mod:`.adapter_runs`).  [own]
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data import Pair
from ..errors import DataError, NumericalError, UsageError
from ..lens import LVLM
from ..machine import clock
from ..models.batching import in_batches
from ..progress import part, step
from ..stats.choice import fold_curve
from ..stats.crossfit import Settings, out_of_fold
from ..stats.resampling import Resampling, group_folds
from ..tolerance import allowed, difference
from .adapter_plan import DIRECTIONS, SPANS, Plan, check_names
from .adapter_result import MEMBERS, AdapterFolder, AdapterGrid, Found
from .adapter_runs import Runs, compare_with_whole, plain_logits
from .adapter_switches import OFF, ON, Config, Switches, switchable
from .batches import alike
from .grid import PatchGrid
from .metrics import LogitsFunction, Metric, make_metric, numbers

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]
"""Called with (pairs done, pairs in all)."""
_ENDPOINT_PAIRS = 2
"""Pairs on which both ends are held against plain forwards."""
_BATCH_BYTES = 2**30
_C, _REPLICATES = 0.01, 1000  # of the probe for harm, as in LinearProbe


@dataclass
class _Work:
    """A plan on one model."""

    plan: Plan
    runs: Runs
    metric: Metric
    seed: int
    verify: int
    say: Callable[[str], None] | None = None
    checked: dict[str, Any] = field(default_factory=dict)


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
        batch_size: pairs per batch; by default as many as about 1 GiB of recorded residuals allows.
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
    check_names(asked, wanted)
    ends = [sample for pair in pairs[:_ENDPOINT_PAIRS] for sample in (pair.clean, pair.corrupted)]
    base_hash = model.weights_hash()
    base = plain_logits(model, model.model, ends)
    with switchable(model, adapter) as (wrapped, record):
        trained = plain_logits(model, wrapped, ends)
        switches = Switches(model)
        runs = Runs(model, switches, model.anatomy.block_index(probe_block), exact)
        plan = Plan.of(switches, model.n_blocks, asked, wanted, window, null)
        work = _Work(plan, runs, make_metric(metric, model), seed, verify, say)
        endpoints = _endpoints(work, ends, base, trained)
        settings = _settings(work, pairs, base_hash, record.sha256, exact)
        return _run(work, pairs, settings, endpoints, record.to_dict(), batch_size, progress, out)


# -- before the runs -----------------------------------------------------------------------------


def _endpoints(work: _Work, prompts: Sequence[Any], base: torch.Tensor, trained: torch.Tensor) -> dict[str, float]:
    """Both ends as cells give them against plain forwards; raises where they are not the same."""
    runs = work.runs
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


def _settings(work: _Work, pairs: Sequence[Pair], weights: str, adapter: str, exact: str) -> dict[str, Any]:
    words = "\0".join(pair.clean.text + "\1" + pair.corrupted.text for pair in pairs)
    model = work.runs.model
    return {
        "directions": list(DIRECTIONS),
        "sites": list(work.plan.sites),
        "blocks": list(range(model.n_blocks)),
        "positions": list(work.plan.spans),
        "pairs": [[pair.clean.id, pair.corrupted.id] for pair in pairs],
        "groups": [pair.group or pair.clean.id for pair in pairs],
        "window": 1,
        "metric": work.metric.name,
        "nulls": ["random"] * work.plan.null,
        "meta": {
            "model": model.name,
            "weights": weights,
            "adapter": adapter,
            "dtype": str(model.dtype).removeprefix("torch."),
            "probe_block": work.runs.probe_block,
            "seed": work.seed,
            "exact": exact,
            "words": hashlib.sha256(words.encode()).hexdigest(),
        },
    }


# -- the runs ------------------------------------------------------------------------------------


def _run(
    work: _Work,
    pairs: Sequence[Pair],
    settings: dict[str, Any],
    endpoints: dict[str, float],
    record: dict[str, Any],
    batch_size: int | None,
    progress: Progress | None,
    out: str | Path | None,
) -> AdapterGrid:
    home = None if out is None else AdapterFolder(Path(out), settings)
    if home is not None and home.finished:
        return AdapterGrid.load(home.path)
    model, configs, count = work.runs.model, work.plan.configs, len(pairs)
    whole = Found(
        np.full((2, *work.plan.shape, count), np.nan),
        np.full((2, work.plan.null, *work.plan.shape, count), np.nan),
        np.full((2, 2, count), np.nan),
        np.zeros((len(configs), 2, count, model.anatomy.d_model), np.float32),
    )
    done = set() if home is None else home.restore(whole)
    finished = len(done)
    todo = alike(pairs, [n for n in range(count) if n not in done], batch_size or _fitting(model, pairs))
    samples = [pair.clean for pair in pairs]

    def run(rows: list[int]) -> Found:
        with part(finished / count, (finished + len(rows)) / count):
            return _batch(work, pairs, rows, configs, count - finished)

    for batch, found in in_batches(samples, count, run, todo):
        for name in ("values", "nulls", "ends", "states"):
            axis = -2 if name == "states" else -1
            np.moveaxis(getattr(whole, name), axis, 0)[batch] = np.moveaxis(getattr(found, name), axis, 0)
        if home is not None:
            home.add(batch, found)
        finished += len(batch)
        if progress is not None:
            progress(finished, count)
    grids = [_grid(work, whole, member, settings) for member in range(2)]
    perception, why = _perception(work, whole.states, settings["groups"])
    meta = {
        **settings["meta"],
        "blocks_run": work.runs.blocks_run,
        "blocks_whole": work.runs.blocks_whole,
        **({} if why is None else {"no_perception": why}),
    }
    units: dict[str, int] = {}
    for unit in work.runs.switches.units:
        units[unit.part] = units.get(unit.part, 0) + 1
    grid = AdapterGrid(grids[0], grids[1], perception, endpoints, record, units, meta)
    if home is not None:
        home.finish(grid)
    return grid


def _fitting(model: LVLM, pairs: Sequence[Pair]) -> int:
    """Pairs a batch: the two recorded forwards keep one residual a block and row."""
    tokens = model.encode(pairs[0].clean).length
    row = 2 * model.n_blocks * tokens * model.anatomy.d_model * torch.finfo(model.dtype).bits // 8
    return int(min(32, max(1, _BATCH_BYTES // row)))


def _batch(work: _Work, pairs: Sequence[Pair], batch: Sequence[int], configs: Sequence[Config], left: int) -> Found:
    """Both members of some pairs; ``left`` pairs, these among them, are still to be run."""
    runs, metric = work.runs, work.metric
    rows = list(range(len(batch)))
    ran, total = 0, 2 * (len(configs) + work.plan.null * len(work.plan.cells))
    found = Found(
        np.full((2, *work.plan.shape, len(batch)), np.nan),
        np.full((2, work.plan.null, *work.plan.shape, len(batch)), np.nan),
        np.full((2, 2, len(batch)), np.nan),
        np.zeros((len(configs), 2, len(batch), runs.model.anatomy.d_model), np.float32),
    )
    for member in range(2):
        encoded = runs.model.encode([(pairs[n].clean, pairs[n].corrupted)[member] for n in batch])
        start = clock(runs.model.device.type)
        recorded = runs.record(encoded)
        if work.say is not None:
            each = (clock(runs.model.device.type) - start) / (2 * runs.model.n_blocks * len(batch))
            work.say(_cost(work, each, left))
            work.say = None
        ends = [runs.run(encoded, end, recorded).logits for end in configs[:2]]  # recorded: nothing is run
        if not all(bool(torch.isfinite(logits).all()) for logits in ends):
            raise NumericalError("the prompts give NaN or infinity; run the model in float32 or bfloat16")
        metric.prepare(ends[1], ends[0])
        found.ends[member] = [numbers(metric, logits, rows) for logits in ends]
        if work.verify and not work.checked:
            held = compare_with_whole(runs, encoded, configs, recorded, metric, work.verify, work.seed)
            work.checked = {} if held is None else held.to_dict()
            if held is not None and held.wrong.any():
                raise NumericalError(
                    f"{int(held.wrong.sum())} of {len(held.wrong)} cells that skip blocks are not what whole forwards "
                    f"give (largest difference {held.difference.max():.2e}); run with exact='full' and report it"
                )
        by_config: dict[Config, np.ndarray] = {}
        for c, config in enumerate(configs):
            forward = runs.run(encoded, config, recorded)
            by_config[config] = numbers(metric, forward.logits, rows)
            found.states[c, member] = forward.states[runs.probe_block].cpu().numpy()
            ran += 1
            step(ran, total)
        for cell in work.plan.cells:
            found.values[(member, *cell.place)] = by_config[cell.config]
        for draw in range(work.plan.null):
            runs.switches.draw(work.seed + draw)
            for cell in work.plan.cells:
                forward = runs.run(encoded, work.plan.drawn(cell), recorded)
                found.nulls[(member, draw, *cell.place)] = numbers(metric, forward.logits, rows)
                ran += 1
                step(ran, total)
    return found


def _cost(work: _Work, seconds: float, pairs: int) -> str:
    """How much there is to do and how long it takes, in words; ``seconds`` are of one block on one prompt."""
    run = work.plan.blocks(whole=work.runs.reason is not None)
    minutes = max(1, round(2 * pairs * run * seconds / 60))
    return f"{work.plan.in_words(2 * pairs, run)}: about {minutes} min at the speed of the first ones"


def _grid(work: _Work, whole: Found, member: int, settings: Mapping[str, Any]) -> PatchGrid:
    base, trained = whole.ends[member]
    reason = work.runs.reason
    return PatchGrid(
        whole.values[member],
        trained,
        base,
        whole.nulls[member] if work.plan.null else None,
        DIRECTIONS,
        work.plan.sites,
        tuple(settings["blocks"]),
        work.plan.spans,
        tuple((a, b) for a, b in settings["pairs"]),
        tuple(settings["groups"]),
        1,
        work.metric.name,
        "resumed" if reason is None else "full",
        reason or "each forward began at the first block that was changed",
        work.checked or {"cells": 0, "max_abs_diff": None},
        {**settings["meta"], "prompts": MEMBERS[member]},
        tuple(settings["nulls"]),
    )


# -- perception ----------------------------------------------------------------------------------


def _perception(work: _Work, states: np.ndarray, groups: Sequence[str]) -> tuple[pd.DataFrame, str | None]:
    """What a probe for harm can tell in every cell, and why not, where it cannot be fitted.

    The probe is refitted in each configuration, on the same folds of whole groups of pairs; the intervals of the AUROC
    and of its change redraw the same groups.
    """
    import pandas as pd

    configs = work.plan.configs
    columns = ["direction", "site", "block", "span", "auroc", "low", "high", "change", "change_low", "change_high"]
    labels = np.repeat([1, 0], states.shape[2])
    rows = states.reshape(len(configs), -1, states.shape[-1])  # [config, sample, d]
    names = np.tile(groups, 2)
    try:
        fold = group_folds(labels, names, seed=work.seed)
    except DataError as error:
        return pd.DataFrame(columns=columns), str(error)
    found = [out_of_fold(part, labels[:, None], fold, [_C], Settings())[0][:, 0, 0] for part in rows]
    weights = Resampling(names, _REPLICATES, work.seed).weights()
    curve = fold_curve("perception", range(len(configs)), np.stack(found, 1), labels, fold, weights, ())
    at = {config: c for c, config in enumerate(configs)}
    assert curve.replicates is not None
    table = []
    for cell in work.plan.cells:
        d, s, block, p = cell.place
        c, start = at[cell.config], d  # the two ends are the first two configurations: base, trained
        apart = np.quantile(curve.replicates[:, c] - curve.replicates[:, start], [0.025, 0.975])
        place = (DIRECTIONS[d], work.plan.sites[s], block, work.plan.spans[p])
        own = (curve.value[c], curve.low[c], curve.high[c], curve.value[c] - curve.value[start])
        table.append([*place, *map(float, (*own, *apart))])
    return pd.DataFrame(table, columns=columns), None
