"""``lvlm-lens patch``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..config import SweepConfig
from ..errors import DataError, UsageError
from . import patch_adapter
from .console import progress_bars
from .options import add_output_options, add_run_options, config_from, say_loaded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of a patch grid."""
    add_run_options(parser)
    add = parser.add_argument
    add(
        "--sites",
        default="resid_post",
        help="comma-separated: resid_post, attn_out, mlp_out, z ... (default: resid_post); or adapter, adapter.attn, "
        "adapter.mlp: the parts of --adapter, switched on and off",
    )
    add(
        "--positions",
        help="position language, mean(...) around it, or image_rows; several spans with commas (default: "
        "image_rows,question,last; for pairs of words mean(question), the template's tokens after it, last)",
    )
    add("--metric", default="refusal_log_odds", help="refusal_log_odds, answer_logit_diff or kl")
    add("--direction", choices=("denoise", "noise", "both"), default="both", help="default: both")
    add("--per", choices=("position", "span"), default="span", help="one cell a token or one a span (default: span)")
    add("--window", type=int, default=1, metavar="N", help="blocks patched together (default: 1; of an adapter 5)")
    add("--pairs", type=int, metavar="N", help=f"at most N pairs (default: {SweepConfig().pairs})")
    add("--all-pairs", action="store_true", help="also pairs whose members behave alike")
    add("--exact", choices=("auto", "full"), default="auto", help="full: run every cell as a plain forward")
    add("--verify", type=int, default=4, metavar="K", help="cells compared with plain forwards (default: 4)")
    add(
        "--control", metavar="DIR", action="append", help="with --sites adapter: another adapter, taken apart beside it"
    )
    add("--roles", metavar="RUN", help="with --sites adapter: a sweep's folder, whose roles are drawn under the grid")
    add("--level", type=float, default=0.05, help="family-wise error over the grid (default: 0.05)")
    add_output_options(parser)


def run(options: argparse.Namespace) -> int:
    """Patch, draw, and say what survives."""
    spans = options.positions
    options.positions = None  # the sweep's own setting means where probes read
    config = config_from(options)
    if patch_adapter.is_asked(options.sites):
        return patch_adapter.run(options, config)
    if config.out is None:
        raise UsageError("patch needs --out DIR: the grid's folder, in which a stopped run continues")
    from ..activations.loop import readable
    from ..causal import patch_grid
    from ..locate.evidence import gather
    from ..plots.patching import plot_patch_grid
    from ..plots.theme import save_figure
    from ..stages.inputs import left_out, load_inputs, without_broken
    from ..stages.patching import behaving_pairs, spans_of

    with progress_bars(options.quiet) as tell:
        model, data = load_inputs(config)
        say_loaded(model, options.quiet)
        broken: dict[str, str] = {}
        on_error = None if config.strict else lambda sample, error: broken.update({sample.id: str(error)})
        if options.all_pairs:
            readable(model, data, on_error, lambda done, total: tell("reading", done, total))
            data = without_broken(data, broken)
            able, counts = data.pairs(), "the data set has no matched pairs (column counterfactual)"
            able = [pair for pair in able if pair.swap == "image"] or able  # of one kind: their spans are not the same
        else:
            evidence = gather(
                model, data, batch_size=config.batch_size, on_error=on_error,
                progress=lambda done, total: tell("reading", done, total),
            )  # fmt: skip
            data = without_broken(data, broken)
            able, counts = behaving_pairs(data, evidence)
        if not able:
            raise DataError(
                f"{left_out(data, '; ')}{counts}"
                + ("" if options.all_pairs else "; --all-pairs patches also pairs whose members behave alike")
            )
        positions: list[str] | str = [word.strip() for word in spans.split(",")] if spans else []
        positions = positions or spans_of(model, able[: config.pairs])[0]
        if len(positions) == 1:
            positions = positions[0]
        grid = patch_grid(
            model,
            able[: config.pairs],
            [word.strip() for word in options.sites.split(",")],
            positions,
            options.metric,
            options.direction,
            options.per,
            options.window,
            exact=options.exact,
            verify=options.verify,
            seed=config.seed,
            progress=lambda done, total: tell("patching", done, total),
            say=lambda line: None if options.quiet else print(line, file=sys.stderr),
            out=config.out,
        )
    table = grid.summary(options.level, seed=config.seed)
    folder = Path(config.out)
    table.to_csv(folder / "cells.csv", index=False)
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
        print(f"{grid!r}\n{counted} (family-wise error {options.level:g} over the grid)")
        shown = ["direction", "site", "block", "position", "effect", "low", "high", "unit", "p_adjusted", "beaten"]
        print(table.sort_values("effect", ascending=False).head(10)[shown].to_string(index=False))
        if found["above_noise"] is not None and found["above_noise"] < found["cells"]:
            print(
                f"{found['cells'] - found['above_noise']} cells change the metric by no more than rounding "
                f"({grid.verification['metric_noise']:.1e}); above_noise in cells.csv names them"
            )
        if "note" in grid.verification:
            print(f"Note: {grid.verification['note']}")
    return 0
