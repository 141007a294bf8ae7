"""``lvlm-lens sasa``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .console import progress_bars
from .options import (
    NOT_KEPT,
    add_output_options,
    add_run_options,
    add_settings,
    config_from,
    left_out_line,
    next_line,
    run_opening,
    say_loaded,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of SASA's report."""
    add_run_options(parser, out_unset=NOT_KEPT)
    group = parser.add_argument_group("SASA")
    add_settings(
        group, ["blocks"],
        blocks="blocks of the map and of the contest; each pair s < f is one more pass over all items, e.g. 5,9,13,17",
        blocks_unset="all, or four with --quick",
    )  # fmt: skip
    add = group.add_argument
    add(
        "--safety-block",
        type=int,
        metavar="S",
        help="block whose output is replaced (default: chosen on training data)",
    )
    add("--fused-block", type=int, metavar="F", help="later block that is projected (default: chosen on training data)")
    add(
        "--features",
        choices=("logits", "last_resid", "fused_resid"),
        default="logits",
        help="what the probe of the edited run reads (default: logits)",
    )
    add(
        "--mode",
        choices=("replace", "residual", "interpolate"),
        default="replace",
        help="how the projected state enters the safety block (default: replace)",
    )
    add(
        "--projection",
        choices=("onto_fused", "onto_safety"),
        default="onto_fused",
        help="which states are projected onto which (default: onto_fused)",
    )
    add("--sasa-positions", default="all", help="tokens that are written: all, text, image or last (default: all)")
    add("--quick", action="store_true", help="a smaller map and fewer controls (default: whole)")
    add_output_options(parser)


def opening(options: argparse.Namespace) -> str:
    """What is about to happen."""
    return run_opening(options)


def run(options: argparse.Namespace) -> int:
    """Measure, draw, and print the verdict first."""
    config = config_from(options)
    with progress_bars(options.quiet):
        from ..config import parse_blocks
        from ..defenses.sasa_report import sasa_report
        from ..plots.sasa import plot_controls, plot_gain_map, plot_label_efficiency, plot_patching_change
        from ..plots.theme import save_figure
        from ..progress import stage
        from ..stages.inputs import left_out, load_inputs
        from ..storage.runfolder import RunFolder

        folder = RunFolder(Path(config.out)) if config.out is not None else None
        model, data = load_inputs(config)
        say_loaded(model, options.quiet)
        labelled = data.filter(lambda sample: sample.harmful is not None)
        with stage("SASA"):
            report = sasa_report(
                model,
                labelled,
                safety_block=options.safety_block,
                fused_block=options.fused_block,
                features=options.features,
                mode=options.mode,
                positions=options.sasa_positions,
                projection=options.projection,
                candidates=parse_blocks(config.blocks, model.n_blocks),
                quick=options.quick,
                batch_size=config.batch_size,
                seed=config.seed,
                out=folder.path / "passes" if folder is not None else None,
                strict=config.strict,
            )
    if folder is not None:
        folder.write_json("sasa.json", report.to_dict())
        save_figure(plot_gain_map(report.map["cells"], model.n_blocks), folder.path, "sasa_map")
        save_figure(plot_controls(report.controls), folder.path, "sasa_controls")
        save_figure(plot_label_efficiency(report.label_efficiency), folder.path, "sasa_labels")
        if report.patching["done"]:
            save_figure(plot_patching_change(report.patching, model.n_blocks), folder.path, "sasa_patching")
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    elif not options.quiet:
        print(f"\n{report}\n")
        print(left_out_line(left_out(data), len(data)) + f"; {len(data) - len(labelled)} without a label")
        print(f"Found: {report.verdict}")
        print(next_line(f"lvlm-lens report {config.out}" if config.out else "the same command with --out DIR keeps it"))
    return 0
