"""What ``--dry-run`` prints: an estimate as text or JSON."""

from __future__ import annotations

import argparse
import json
from typing import Any


def print_estimate(found: dict[str, Any], options: argparse.Namespace) -> int:
    """Print an estimate as the output options ask; gives the exit code."""
    print(json.dumps(found, indent=2) if options.json else "\n".join(estimate_lines(found)))
    return 0


_UNITS = {
    "parameters": ("weights", 1, "{:,.0f}"), "tokens_a_sample": ("tokens", 1, "{:,.1f}"),
    "samples": ("items", 1, "{:,.0f}"), "pairs": ("at most", 1, "{:,.0f}"),
    "forwards": ("prompts through the whole model", 1, "{:,.0f}"),
    "flops": ("TFLOP", 1e12, "{:,.3g}"), "bytes_on_disk": ("MiB", 2**20, "{:,.0f}"),
    "sweeps": ("one after the other", 1, "{:,.0f}"), "weights_bytes": ("GiB", 2**30, "{:.2f}"),
    "seconds": ("s", 1, "{:,.0f}"), "peak_bytes": ("GiB", 2**30, "{:.2f}"), "device_bytes": ("GiB", 2**30, "{:.2f}"),
    "largest_batch_size": ("rows", 1, "{:,.0f}"),
}  # fmt: skip
"""Unit, divisor and form of each number of an estimate."""


def estimate_lines(found: dict[str, Any]) -> list[str]:
    """An estimate as text, every number with its unit."""
    lines = []
    for name, value in found.items():
        shown = name.replace("_", " ").removesuffix(" bytes").replace("bytes ", "")
        if isinstance(value, dict):
            lines += [f"{key:>28}  {number:,.1f} s" for key, number in value.items()]
        elif isinstance(value, list):
            lines += [f"{'supposed':>28}  {item}" for item in value]
        elif name in _UNITS and value is not None:
            unit, divisor, form = _UNITS[name]
            lines.append(f"{shown:>28}  {form.format(value / divisor)} {unit}")
        else:
            lines.append(f"{shown:>28}  {value}")
    seconds = found["seconds"]
    length = f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
    return [*lines, f"About {length} on this machine; meant to be right within a factor of two"]
