"""``lvlm-lens compare``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from .options import add_output_options, next_line

if TYPE_CHECKING:
    from ..comparison import Comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the comparison."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of finished sweeps, two or more")
    parser.add_argument(
        "--out", metavar="DIR", help="where the figure and comparison.json go (default: beside the runs)"
    )
    add_output_options(parser)


def opening(options: argparse.Namespace) -> str:
    """What is about to happen."""
    return f"{len(options.runs)} finished runs; loading libraries"


def run(options: argparse.Namespace) -> int:
    """Compare, draw, and print the tests."""
    from ..comparison import compare_runs, write_comparison

    found = compare_runs(options.runs)
    names = "-".join(Path(folder).resolve().name for folder in options.runs)
    out = write_comparison(found, options.out or Path(options.runs[0]).resolve().parent / f"compare-{names}")
    if options.json:
        print(json.dumps(found.to_dict(), indent=2))
    elif not options.quiet:
        print_comparison(found, out)
    return 0


def print_comparison(found: Comparison, out: Path) -> None:
    """The tests as a table on standard output."""
    from ..report.findings import of_comparison
    from .console import console, simple_table

    shown = console()
    table = simple_table("difference", "role", "what", "value [95 %]", "p", "q", title="Differences")
    for row in found.tests:
        what = f"{row['second']} - {row['first']}"
        if "reason" in row:
            table.add_row(what, row["role"], row["what"], f"not tested: {row['reason']}", "-", "-")
            continue
        value = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        value += "" if row["paired"] else " (not paired)"
        table.add_row(what, row["role"], row["what"], value, f"{row['p_value']:.4f}", f"{row['q_value']:.4f}")
    shown.print(table)
    for note in found.notes:
        shown.print(f"Note: {note}")
    shown.print(f"comparison.png, comparison.svg and comparison.json in {out}")
    shown.print(f"[bold]Found:[/bold] {of_comparison(found.to_dict())}")
    shown.print(next_line(f"lvlm-lens report {out}"))
