"""``lvlm-lens report``."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the report."""
    parser.add_argument("run", help="folder of a finished run, or the file that selftest --out wrote")
    parser.add_argument(
        "--out", metavar="FILE", help="where to write the page (default: report.html in the run folder)"
    )


def run(options: argparse.Namespace) -> int:
    """Write the page and say where."""
    from ..report import write_report

    print(write_report(options.run, options.out))
    print("One file that asks for nothing: open it in a browser, or send it to somebody", file=sys.stderr)
    return 0
