"""``lvlm-lens patch``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..errors import UsageError
from ..storage.tables import save_table
from . import patch_adapter
from .console import console, progress_bars, simple_table
from .estimates import print_estimate
from .options import (
    add_output_options,
    add_run_options,
    add_settings,
    config_from,
    left_out_line,
    next_line,
    say_loaded,
)
from .workers import add_worker_options, asked_for, run_jobs, shared_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of a patch grid."""
    add_run_options(parser, out_unset="to be given")
    group = parser.add_argument_group("patching")
    add = group.add_argument
    add(
        "--sites",
        default="resid_post",
        help="with commas: resid_post, attn_out, mlp_out, z ... (default: resid_post); or adapter, adapter.attn, "
        "adapter.mlp: the parts of --adapter, switched on and off",
    )
    add_settings(
        group, ["positions", "pairs"],
        positions="position language, mean(...) around it, or image_rows; several spans with commas",
        positions_unset="image_rows,question,last; for pairs of words mean(question), the template's tokens after "
        "it, last",
        pairs="at most N pairs, drawn with --seed (with --sites adapter the first ones)",
    )  # fmt: skip
    add(
        "--metric",
        default="refusal_log_odds",
        help="refusal_log_odds, answer_logit_diff or kl (default: refusal_log_odds)",
    )
    add(
        "--direction", choices=("denoise", "noise", "both"), default="both", help="which run is patched (default: both)"
    )
    add("--per", choices=("position", "span"), default="span", help="a cell per token or per span (default: span)")
    add("--window", type=int, default=1, metavar="N", help="blocks patched together (default: 1; of an adapter 5)")
    add("--all-pairs", action="store_true", help="also pairs whose members behave alike (default: no)")
    add("--exact", choices=("auto", "full"), default="auto", help="full: every cell as a plain forward (default: auto)")
    add("--verify", type=int, default=4, metavar="K", help="cells compared with plain forwards (default: 4)")
    add(
        "--control",
        metavar="DIR",
        action="append",
        help="with --sites adapter: another adapter, taken apart beside it (default: none)",
    )
    add(
        "--roles", metavar="RUN",
        help="with --sites adapter: a sweep's folder, whose roles are drawn under the grid (default: none)",
    )  # fmt: skip
    add("--level", type=float, default=0.05, help="family-wise error over the grid (default: 0.05)")
    add("--dry-run", action="store_true", help="print forwards, time and memory, and stop (default: run)")
    add_worker_options(parser)
    add_output_options(parser)


def opening(options: argparse.Namespace) -> str:
    """What is about to happen, and how many pairs it takes for anything to be found."""
    config = config_from(argparse.Namespace(**{**vars(options), "positions": None}))
    if config.out is None and not options.dry_run and not patch_adapter.is_asked(options.sites):
        raise UsageError("patch needs --out DIR: the grid's folder, in which a stopped run continues")
    return (
        f"{config.model} on {config.dataset}, {config.pairs} pairs at most, "
        f"{'a dry run, nothing is written' if options.dry_run else f'into {config.out}'}; "
        "loading libraries, model and data"
    )


def run(options: argparse.Namespace) -> int:
    """Patch, draw, and say what survives."""
    spans = options.positions
    options.positions = None  # the sweep's own setting means where probes read
    config = config_from(options)
    if patch_adapter.is_asked(options.sites):
        return patch_adapter.run(options, config)
    sites, positions = _words(options.sites), _words(spans or "")
    if options.dry_run:
        from ..estimate_patch import estimate_patch

        return print_estimate(estimate_patch(config, sites, positions, options.direction, options.all_pairs), options)
    assert config.out is not None

    def say(line: str) -> None:
        if not options.quiet:
            print(line, file=sys.stderr)

    with progress_bars(options.quiet) as tell:
        from ..causal.grid_options import GridOptions
        from ..plots.patching import plot_patch_grid
        from ..plots.theme import save_figure
        from ..progress import stage
        from ..report.findings import effect_text, of_cells
        from ..stages.inputs import left_out
        from ..stages.patch_run import PatchRun
        from ..stats.maxt import fewest_groups

        need = fewest_groups(options.level, one_sided=True)
        say(f"at least {need} pairs of different groups are needed for any cell to survive at {options.level:g}")
        asked = GridOptions(
            list(sites),
            list(positions),
            options.metric,
            options.direction,
            options.per,
            options.window,
            exact=options.exact,
        )
        run = PatchRun(config, asked, options.all_pairs)
        if asked_for(options):
            from ..scale.jobs.grids import PatchJob
            from ..scale.jobs.reading import ReadingJob

            reading = ReadingJob.of_patch(config, shared_folder(config.out, "patch"))
            run_jobs(options, [*([] if options.all_pairs else [reading]), PatchJob(run)], config)
        model, data = run.load()
        say_loaded(model, options.quiet)
        groups = {pair.clean.group or pair.clean.id for pair in data.pairs()}
        say(
            f"the data set has {len(data.pairs())} pairs in {len(groups)} groups"
            + ("" if len(groups) >= need else ": no cell can survive, whatever the model does")
        )
        work, data = run.work(model, data, tell)
        say(work.attainable())
        with stage("patching"):
            grid = work.run_all(options.verify)
    table = grid.summary(options.level, seed=config.seed)
    folder = Path(config.out)
    save_table(folder / "cells.csv", table)
    for site in grid.sites:
        save_figure(plot_patch_grid(grid, model.n_blocks, site, options.level), folder, f"patching_{site}")
    found = {
        "out": config.out,
        "pairs": len(grid.pairs),
        "metric": grid.metric,
        "engine": grid.engine,
        "reason": grid.reason,
        "verification": dict(grid.verification),
        "cells": len(table),
        "surviving": int(table["survives"].sum()),
        "above_noise": None if grid.above_noise() is None else int(table["above_noise"].sum()),
        "attainable": table.attrs["attainable"],
        "strongest": json.loads(table.sort_values("effect", ascending=False).head(10).to_json(orient="records")),
    }
    if options.json:
        print(json.dumps(found, indent=2, default=float))
    elif not options.quiet:
        counted = f"{found['surviving']} of {found['cells']} cells are above 0 and beat every null"
        out = console()
        out.print(f"{grid!r}\n{counted} (family-wise error {options.level:g} over the grid)", markup=False)
        shown = simple_table(
            "direction", "site", "block", "position", "effect [95 %]", "p adjusted", "beats",
            title=f"The ten strongest cells, in {table['unit'].iloc[0]}", right=("block",),
        )  # fmt: skip
        for row in table.sort_values("effect", ascending=False).head(10).to_dict(orient="records"):
            shown.add_row(
                row["direction"], row["site"], str(row["block"]), row["position"], effect_text(row),
                f"{row['p_adjusted']:.3g}", str(row["beaten"]),
            )  # fmt: skip
        out.print(shown)
        if found["above_noise"] is not None and found["above_noise"] < found["cells"]:
            print(
                f"{found['cells'] - found['above_noise']} cells change the metric by no more than rounding "
                f"({grid.verification['metric_noise']:.1e}); above_noise in cells.csv names them"
            )
        if "note" in grid.verification:
            print(f"Note: {grid.verification['note']}")
        print(left_out_line(left_out(data), len(data)))
        print(f"Found: {of_cells(table.to_dict(orient='records'))}")
        print(next_line(f"lvlm-lens report {config.out}"))
    return 0


def _words(listed: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in listed.split(",") if word.strip())
