"""``lvlm-lens sweep``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .console import console, progress_bars, show
from .estimates import print_estimate
from .options import (
    add_output_options,
    add_run_options,
    add_settings,
    config_from,
    left_out_line,
    loaded_lines,
    next_line,
    run_opening,
)
from .workers import add_worker_options, asked_for, run_jobs, shared_folder

if TYPE_CHECKING:
    from ..config import SweepConfig
    from ..scale.job import Job
    from ..scale.jobs.reading import Reader
    from ..sweep import SweepResult


READING = ("blocks", "positions", "measures", "backbone", "twin", "match", "folds", "permutations", "replicates")
"""Settings that concern reading and locating: of the sweep and of its first half."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sweep."""
    add_run_options(parser)
    group = parser.add_argument_group("what is read and measured")
    add_settings(group, (*READING, "pairs", "sasa", "defenses"))
    add = group.add_argument
    add(
        "--against-base", action="store_true",
        help="with --adapter: the same sweep without it too, and the paired differences (default: the adapter alone)",
    )  # fmt: skip
    add("--dry-run", action="store_true", help="print forwards, time by stage and memory, and stop (default: run)")
    add_worker_options(parser)
    add_output_options(parser)


def opening(options: argparse.Namespace) -> str:
    """What is about to happen."""
    return run_opening(options, str(config_from(options).folder))


def run(options: argparse.Namespace) -> int:
    """Run, and say what was found."""
    config = config_from(options)
    if options.against_base:
        from ..against_base import both_configs

        both_configs(config)  # a missing adapter is said before anything runs
    if options.dry_run:
        from ..estimate import estimate_sweep

        return print_estimate(estimate_sweep(config, 2 if options.against_base else 1), options)
    if options.against_base:
        return _run_against_base(config, options)
    return run_and_print(config, options)


def _run_against_base(config: SweepConfig, options: argparse.Namespace) -> int:
    """Both sweeps, their summaries, and the differences."""
    from .compare import print_comparison

    def named(tell: Any, name: str) -> Any:
        return lambda stage, done, total: tell(f"{name}: {stage}", done, total)

    with progress_bars(options.quiet) as tell:
        from ..against_base import sweep_against_base

        found = sweep_against_base(config, lambda name: named(tell, name), ["lvlm-lens", *sys.argv[1:]])
    if options.json:
        print(json.dumps(found.to_dict(), indent=2))
    elif not options.quiet:
        print_summary(found.base)
        print_summary(found.adapted)
        print_comparison(found.comparison, found.folder / "comparison")
    return 0


def _jobs(config: SweepConfig) -> list[Job]:
    """What workers do of a sweep: all that is read, and the patch grid."""
    from ..scale.jobs.grids import SweepGridJob
    from ..scale.jobs.reading import ReadingJob

    folder = shared_folder(config.folder, "sweep")
    config = replace(config, out=folder)
    every: tuple[Reader, ...] = ("model", "twin", "lvlm_in_words", "backbone")
    readers = [reader for reader in every if config.twin or reader != "twin"]
    jobs: list[Job] = [ReadingJob.of_sweep(config, folder, reader) for reader in readers]
    return [*jobs, *([SweepGridJob(config)] if config.pairs else [])]


def run_and_print(config: SweepConfig, options: argparse.Namespace) -> int:
    """Run a sweep with progress bars and print it as the output options ask."""
    with progress_bars(options.quiet) as tell:
        from ..sweep import run_sweep

        if asked_for(options):
            run_jobs(options, _jobs(config), config)
        result = run_sweep(config, tell, ["lvlm-lens", *sys.argv[1:]])
    if options.json:
        print(json.dumps(result.data, indent=2))
    elif not options.quiet:
        print_summary(result)
    return 0


def print_summary(result: SweepResult) -> None:
    """What was found, stage by stage, on standard output; at the end one sentence, and what to type next."""
    from ..report.findings import of_sweep

    out, data = console(), result.data
    first, *rest = result.summary()
    show(out, [first])
    for line in loaded_lines(data["model"]):
        out.print(line)
    show(out, rest)
    seconds = sum(data["timings"].values())
    out.print(f"{len(data['figures'])} figures, result.json and curves.parquet in {result.folder}  ({seconds:.0f} s)")
    problems = left_out_line(data["dataset"].get("left_out", ""), data["dataset"]["samples"])
    out.print(
        problems + ("; all of them: dataset.problem_list in result.json" if data["dataset"].get("left_out") else "")
    )
    out.print(f"\n[bold]Found:[/bold] {of_sweep(data)}", highlight=False)
    out.print(next_line(f"lvlm-lens report {result.folder}"))
