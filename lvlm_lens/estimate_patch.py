"""What a patch grid, or a grid over an adapter's parts, would cost before anything is spent.

Counted from the model's shapes, the data and, of an adapter, the names in its file; the units of work are timed here
and now, as for a sweep (:mod:`.estimate`).  Meant to be right within a factor of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .causal.adapter_plan import SPANS, Plan, check_names, units_in_file
from .config import SweepConfig
from .data import Pair
from .errors import DataError, LensError
from .estimate import Opened, seconds_of
from .stages.patching import patching_work, spans_of
from .stages.work import Work

ADAPTED = 1.9
"""A block that holds an adapter for one without, in seconds: beside each linear map there are two small ones
(measured on smol with a LoRA of rank 8 on every map)."""


def estimate_patch(
    config: SweepConfig,
    sites: Sequence[str],
    positions: Sequence[str] = (),
    direction: str = "both",
    all_pairs: bool = False,
) -> dict[str, Any]:
    """Forwards, seconds and memory of ``lvlm-lens patch`` at most: as if all pairs behaved as their labels say."""
    opened, pairs = _opened(config)
    work, said = None, ""
    for spans in [list(positions)] if positions else [*spans_of(opened.model, pairs[:1]), ["last"]]:
        try:
            work = patching_work(opened.model, pairs[0], len(pairs), spans)[0]
            break
        except LensError as error:  # a token grid that is no square, say
            said = str(error)
    if work is None:
        raise DataError(f"no span can be patched: {said}")
    ways = 1.0 if direction == "both" else 0.5
    rows = 2 * len(pairs) + len(sites) * ways * (work.rows - 2 * len(pairs))
    reading = {} if all_pairs else {"reading": Work(rows=len(opened.data))}
    every = {**reading, "patching": Work(rows=rows, note=work.note), "figures": Work(figures=len(sites))}
    memory = opened.memory(replace(config, twin=False, sasa=False))
    return _told(config, opened, pairs, every, memory.peak)


def estimate_adapter_grid(
    config: SweepConfig,
    adapters: Sequence[str | Path],
    sites: Sequence[str],
    window: int = 5,
    exact: str = "auto",
    verify: int = 4,
    null: int = 1,
) -> dict[str, Any]:
    """Forwards, seconds and memory of grids over the parts of some adapters of one base, one after the other."""
    check_names(sites, SPANS)
    opened, pairs = _opened(config)
    n_blocks, model = opened.anatomy.n_blocks, opened.model.model
    whole = exact == "full" or "shared_kv" in opened.anatomy.family.flow
    prompts, batch = 2 * len(pairs), min(config.batch_size, len(pairs))
    every, forwards = {}, 0.0
    for adapter in adapters:
        plan = Plan.of(units_in_file(model, opened.anatomy, adapter), n_blocks, sites, SPANS, window, null)
        rows = prompts * (2 + plan.blocks(whole) / n_blocks) + 4 * verify * batch
        forwards += rows
        every[f"adapter {Path(adapter).name}"] = Work(
            rows=rows * ADAPTED, probes_plain=len(plan.configs), figures=1,
            note=plan.in_words(prompts, plan.blocks(whole)),
        )  # fmt: skip
    memory = opened.memory(replace(config, twin=False, sasa=False, pairs=0, batch_size=batch))
    size = torch.finfo(opened.dtype).bits // 8
    recorded = 2 * (n_blocks + 1) * opened.longest * opened.anatomy.d_model * size * batch
    files = max(sum(file.stat().st_size for file in Path(adapter).expanduser().iterdir()) for adapter in adapters)
    return {**_told(config, opened, pairs, every, memory.peak + recorded + files), "forwards": round(forwards)}


def _opened(config: SweepConfig) -> tuple[Opened, list[Pair]]:
    """The base, whose adapter is not loaded, the data, and the pairs that would be patched."""
    opened = Opened.of(replace(config, adapter=None), config.limit)
    pairs = opened.data.pairs()[: config.pairs]
    if not pairs:
        raise DataError(f"data set {opened.data.name!r} has no matched pairs (column counterfactual)")
    return opened, pairs


def _told(
    config: SweepConfig, opened: Opened, pairs: Sequence[Pair], work: dict[str, Work], peak: float
) -> dict[str, Any]:
    bare = replace(config, twin=False, sasa=False, defenses=False)
    speed = opened.speed(bare, 2 * len(pairs))
    spent = {"loading": speed.load, **{name: seconds_of(one, speed) for name, one in work.items()}}
    memory = opened.memory(replace(bare, pairs=0))
    return {
        "model": config.model,
        "dataset": config.dataset,
        "pairs": len(pairs),
        "tokens_a_sample": round(opened.tokens, 1),
        "forwards": round(sum(one.rows for one in work.values())),
        "device": opened.device,
        "seconds_by_stage": {name: round(seconds, 1) for name, seconds in spent.items()},
        "seconds": round(sum(spent.values()), 1),
        "weights_bytes": memory.weights,
        "peak_bytes": round(peak),
        "device_bytes": memory.device,
        "supposed": [f"{name}: {one.note}" for name, one in work.items() if one.note],
    }
