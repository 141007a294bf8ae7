"""``lvlm-lens patch --adapter DIR --sites adapter``: the grid over an adapter's parts."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import SweepConfig
from ..errors import DataError, UsageError
from ..storage.tables import save_table
from .console import progress_bars
from .estimates import print_estimate
from .options import left_out_line, next_line, say_loaded

if TYPE_CHECKING:
    from ..causal import AdapterGrid


WINDOW = 5
"""Blocks of a window, where ``--window`` is not given."""
_KEPT_AFTER = 4
"""Most pairs per batch, however many rows a forward may have: a finished batch is kept, and one pair is hundreds of
forwards."""


def is_asked(sites: str) -> bool:
    """Whether ``--sites`` names parts of an adapter and not places in the residual stream."""
    return any(name.strip().partition(".")[0] == "adapter" for name in sites.split(","))


def run(options: argparse.Namespace, config: SweepConfig) -> int:
    """Take the adapter apart, and each control adapter beside it."""
    sites = [word.strip() for word in options.sites.split(",")]
    window = options.window if options.window > 1 else WINDOW
    config = replace(config, batch_size=min(config.batch_size, _KEPT_AFTER))
    if config.adapter is None or (config.out is None and not options.dry_run):
        raise UsageError(
            "--sites adapter needs --adapter DIR, the adapter to take apart, and --out DIR, the grid's folder"
        )
    if options.dry_run:
        from ..estimate_patch import estimate_adapter_grid

        adapters = [config.adapter, *(options.control or ())]
        return print_estimate(
            estimate_adapter_grid(config, adapters, sites, window, options.exact, options.verify), options
        )
    assert config.out is not None
    from ..sweep import SweepResult

    roles = None if options.roles is None else SweepResult.load(options.roles).roles
    folders = {config.out: config.adapter}
    folders |= {str(Path(config.out) / f"control-{Path(other).name}"): other for other in options.control or ()}
    grids: dict[str, AdapterGrid] = {}
    with progress_bars(options.quiet):
        from ..causal import adapter_grid
        from ..progress import stage
        from ..stages.inputs import left_out, load_inputs
        from ..stats.maxt import attainable, fewest_groups

        if not options.quiet:
            need = fewest_groups(options.level, one_sided=True)
            print(f"at least {need} pairs of different groups are needed for any cell to survive", file=sys.stderr)
        model, data = load_inputs(replace(config, adapter=None))  # the base: the adapter is switched, not loaded
        say_loaded(model, options.quiet)
        pairs = data.pairs()[: config.pairs]
        if not pairs:
            raise DataError(f"data set {data.name!r} has no matched pairs (column counterfactual)")
        for folder, adapter in folders.items():
            with stage(f"adapter {Path(adapter).name}"):
                grids[folder] = adapter_grid(
                    model, adapter, pairs, sites, window=window,
                    metric=options.metric, null=1, exact=options.exact, verify=options.verify,
                    batch_size=config.batch_size, seed=config.seed, out=folder,
                    say=None if options.quiet else partial(print, file=sys.stderr),
                )  # fmt: skip
    told = [_write(grid, folder, roles, options.level, config.seed) for folder, grid in grids.items()]
    if options.json:
        print(json.dumps({**told[0], "controls": told[1:]}, indent=2, default=float))
    elif not options.quiet:
        print(attainable(grids[config.out].refusal.groups, told[0]["cells"], one_sided=True), file=sys.stderr)
        for found in told:
            _say(found)
        print(left_out_line(left_out(data), len(data)))
        print(f"Found: {told[0]['surviving']} of {told[0]['cells']} cells survive the control for many tests")
        print(next_line(f"lvlm-lens report {config.out}"))
    return 0


def _write(grid: AdapterGrid, folder: str, roles: Any, level: float, seed: int) -> dict[str, Any]:
    from ..plots.adapter import plot_adapter_grid
    from ..plots.theme import save_figure

    table = grid.summary(level, seed=seed)
    save_table(Path(folder) / "adapter_cells.csv", table)
    save_figure(plot_adapter_grid(grid, roles), folder, "adapter_grid")
    harmful = table[table["on"] == "harmful"].sort_values("effect", ascending=False)
    return {
        "out": folder,
        "adapter": grid.record["name"],
        "units": dict(grid.units),
        "pairs": len(grid.refusal.pairs),
        "metric": grid.refusal.metric,
        "harmful": {"base": float(grid.refusal.corrupted.mean()), "trained": float(grid.refusal.clean.mean())},
        "harmless": {
            "base": float(grid.over_refusal.corrupted.mean()),
            "trained": float(grid.over_refusal.clean.mean()),
        },
        "endpoints": dict(grid.endpoints),
        "verification": dict(grid.refusal.verification),
        "cells": len(table),
        "surviving": int(table["survives"].sum()),
        "strongest": json.loads(harmful.head(10).to_json(orient="records")),
    }


def _say(found: dict[str, Any]) -> None:
    ends, parts = found["endpoints"], ", ".join(f"{part} {count}" for part, count in found["units"].items())
    print(
        f"Adapter {found['adapter']} ({parts}), {found['pairs']} pairs, {found['metric']}: harmful "
        f"{found['harmful']['base']:+.2f} -> {found['harmful']['trained']:+.2f}, harmless "
        f"{found['harmless']['base']:+.2f} -> {found['harmless']['trained']:+.2f}\n"
        f"Nothing on is the base model to {ends['base']:.1e}, all on is the trained model to {ends['trained']:.1e} "
        f"(they are {ends['apart']:.2g} apart; plain forwards of PEFT, {ends['prompts']} prompts)\n"
        f"{found['surviving']} of {found['cells']} cells survive the control for many tests"
    )
    for row in found["strongest"][:6]:
        print(
            f"  {row['direction']:<8} {row['site']:<13} block {row['block']:>2} {row['span']:<12} "
            f"{row['effect']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}] {row['unit']}"
            f"{'' if row['survives'] else '  (does not survive)'}"
        )
