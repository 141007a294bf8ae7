"""``lvlm-lens locate``: the sweep's first half, without patching and SASA."""

from __future__ import annotations

import argparse

from .options import add_output_options, add_run_options, add_settings, config_from, run_opening
from .workers import add_worker_options

_LEFT = {"pairs": 0, "sasa": False, "defenses": False}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of locating: those of the sweep that concern it."""
    from .sweep import READING

    add_run_options(parser)
    add_settings(parser.add_argument_group("what is read and measured"), READING)
    add_worker_options(parser)
    add_output_options(parser)


def opening(options: argparse.Namespace) -> str:
    """What is about to happen."""
    return run_opening(options, str(config_from(options).folder), **_LEFT)


def run(options: argparse.Namespace) -> int:
    """A sweep that neither patches nor projects; the folder holds the same files."""
    from .sweep import run_and_print

    return run_and_print(config_from(options, _LEFT), options)
