"""``lvlm-lens bench``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .options import add_output_options, add_settings, next_line, setting

SWEEP = ("model", "dataset", "limit", "dtype", "pairs", "sasa", "defenses")
"""Settings of the sweep that is measured."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmarks."""
    parser.add_argument(
        "what", choices=("capture", "patch", "probe", "sweep", "scale", "study"), help="the task that is measured"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="torch threads (default: torch's own)")
    parser.add_argument("--out", metavar="FILE", help="write the JSON there too (default: nowhere)")
    add_settings(parser.add_argument_group("sweep: what is swept"), SWEEP)
    parser.add_argument("--parts", metavar="LIST", help="scale: any of driver,ledger,workers (default: all)")
    add_output_options(parser)


def opening(options: argparse.Namespace) -> str:
    """What is about to happen."""
    if options.what == "study":
        return "reckoning the standard study on 1, 8 and 64 H100 from the dry run's counts, minutes; loading libraries"
    return f"measuring {options.what}, where there are other tools beside them; this takes minutes; loading libraries"


def run(options: argparse.Namespace) -> int:
    """Measure in one run and print the table."""
    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    if options.what == "capture":
        from ..bench.capture import bench_capture, capture_table

        found, table = (result := bench_capture()), capture_table(result)
    elif options.what == "patch":
        from ..bench.patch import bench_patch, patch_table

        found, table = (result := bench_patch()), patch_table(result)
    elif options.what == "sweep":
        from ..bench.sweep import bench_sweep, sweep_table
        from ..config import SweepConfig
        from .console import progress_bars

        with progress_bars(options.quiet) as tell:
            result = bench_sweep(SweepConfig(**{name: setting(options, name) for name in SWEEP}), tell)
        found, table = result, sweep_table(result)
    elif options.what == "scale":
        from ..bench.scale import PARTS, bench_scale, scale_table

        parts = tuple(PARTS) if options.parts is None else tuple(options.parts.split(","))
        record = None if options.out is None else Path(options.out)
        found, table = (result := bench_scale(parts, record)), scale_table(result)
    elif options.what == "study":
        from ..bench.study import bench_study, study_table

        found, table = (result := bench_study()), study_table(result)
    else:
        from ..bench.probe import bench_probe, probe_table

        found, table = (result := bench_probe()), probe_table(result)
    text = json.dumps(found, indent=2)
    if options.out is not None:
        from ..storage.commit import write_atomic

        write_atomic(Path(options.out), text + "\n")
    print(text if options.json else table)
    if not options.json and not options.quiet:
        how = "reckoned" if options.what == "study" else "measured in one run on this machine"
        print(f"Found: the table above, {how}")
        print(next_line("lvlm-lens bench " + {"capture": "patch", "patch": "probe"}.get(options.what, "capture")))
    return 0
