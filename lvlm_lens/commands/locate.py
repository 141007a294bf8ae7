"""``lvlm-lens locate``: the sweep's first half, without patching and SASA."""

from __future__ import annotations

import argparse

from .options import add_output_options, add_run_options, config_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of locating: those of the sweep that concern it."""
    add_run_options(parser)
    parser.add_argument("--blocks", help="e.g. 0-5,8,-1 (default: all)")
    parser.add_argument("--positions", help="where the residual stream is read (default: last)")
    parser.add_argument("--measures", metavar="NAMES", help="default, all, or names with commas (default: default)")
    parser.add_argument("--backbone", metavar="NAME", help="language-only backbone to compare with")
    parser.add_argument("--no-twin", dest="twin", action="store_const", const=False, help="no random-weight twin")
    parser.add_argument("--folds", type=int, help="folds of the probes (default: 5)")
    parser.add_argument("--permutations", type=int, help="label shuffles of the null (default: 50)")
    parser.add_argument("--replicates", type=int, help="bootstrap replicates (default: 1000)")
    add_output_options(parser)


def run(options: argparse.Namespace) -> int:
    """A sweep that neither patches nor projects; the folder holds the same files."""
    from .sweep import run_and_print

    return run_and_print(config_from(options, {"pairs": 0, "sasa": False, "defenses": False}), options)
