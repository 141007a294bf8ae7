"""``lvlm-lens sweep``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from .console import console, progress_bars, simple_table
from .options import (
    add_output_options,
    add_run_options,
    config_from,
    left_out_line,
    loaded_lines,
    next_line,
    run_opening,
)

if TYPE_CHECKING:
    from ..config import SweepConfig
    from ..sweep import SweepResult


def _print_defenses(out: Any, found: dict[str, Any]) -> None:
    if not found["done"]:
        out.print(f"Defences: not done: {found['reason']}")
        return
    setting = found["setting"]
    asked = f"{setting['harmful']} harmful and {setting['harmless']} harmless requests"
    numbers = ("not refused", "complied", "over-refusal", "forwards")
    table = simple_table("system", *numbers, title=f"Defences, a first look on {asked}", right=numbers)
    for row in found["rows"]:
        forwards = row["cost"].get("forwards")
        cells = [_percent(row[key]) for key in ("attack_success", "complied", "over_refusal")]
        table.add_row(row["system"], *cells, "-" if forwards is None else f"{forwards:.1f}")
    out.print(table)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sweep."""
    add_run_options(parser)
    add = parser.add_argument_group("what is read and measured").add_argument
    add_reading_options(add)
    add("--pairs", type=int, metavar="N", help="matched pairs to patch; 0 for none (default: 10)")
    add("--no-sasa", dest="sasa", action="store_const", const=False, help="leave SASA out (default: measured)")
    add(
        "--no-defenses", dest="defenses", action="store_const", const=False,
        help="leave the small defence table out (default: made)",
    )  # fmt: skip
    add(
        "--against-base", action="store_true",
        help="with --adapter: the same sweep without it too, and the paired differences (default: the adapter alone)",
    )  # fmt: skip
    add("--dry-run", action="store_true", help="print forwards, time by stage and memory, and stop (default: run)")
    add_output_options(parser)


def add_reading_options(add: Any) -> None:
    """What concerns reading and locating: of the sweep and of its first half."""
    add("--blocks", help="e.g. 0-5,8,-1 (default: all)")
    add("--positions", help="where the residual stream is read, e.g. last or question[-4:] (default: last)")
    add("--measures", metavar="NAMES", help="default, all, or names with commas; robustness too (default: default)")
    add("--backbone", metavar="NAME", help="language-only backbone to compare with (default: the embedded model's own)")
    add(
        "--no-twin", dest="twin", action="store_const", const=False,
        help="leave out the random-weight twin (default: measured)",
    )  # fmt: skip
    add("--folds", type=int, help="folds of the probes (default: 5)")
    add("--permutations", type=int, help="label shuffles of the null (default: 50)")
    add("--replicates", type=int, help="bootstrap replicates (default: 1000)")


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

        found = estimate_sweep(config, 2 if options.against_base else 1)
        print(json.dumps(found, indent=2) if options.json else "\n".join(estimate_lines(found)))
        return 0
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


_UNITS = {
    "parameters": ("weights", 1, "{:,.0f}"), "tokens_a_sample": ("tokens", 1, "{:,.1f}"),
    "samples": ("items", 1, "{:,.0f}"), "forwards": ("prompts through the whole model", 1, "{:,.0f}"),
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
    return [
        *lines,
        f"About {found['seconds'] / 60:.0f} minutes on this machine; meant to be right within a factor of two",
    ]


def run_and_print(config: SweepConfig, options: argparse.Namespace) -> int:
    """Run a sweep with progress bars and print it as the output options ask."""
    with progress_bars(options.quiet) as tell:
        from ..sweep import run_sweep

        result = run_sweep(config, tell, ["lvlm-lens", *sys.argv[1:]])
    if options.json:
        print(json.dumps(result.data, indent=2))
    elif not options.quiet:
        print_summary(result)
    return 0


def _percent(cell: dict[str, Any]) -> str:
    if cell["value"] is None:
        return "-"
    return f"{100 * cell['value']:.0f} % [{100 * cell['low']:.0f}, {100 * cell['high']:.0f}]"


def consensus_line(role: str, found: dict[str, Any]) -> str:
    """One line on a role's consensus."""
    from ..locate.consensus import votes_text

    if not found["found"]:
        return f"{role} {votes_text(found)}"
    return (
        f"{role} from block {found['onset']} [{found['onset_low']}, {found['onset_high']}] "
        f"({votes_text(found)}, onsets {found['spread'][0]}-{found['spread'][1]})"
    )


def print_summary(result: SweepResult) -> None:
    """Roles, order and quadrants as tables on standard output."""
    from ..report.findings import of_sweep

    out = console()
    data = result.data
    out.print(
        f"\n[bold]{data['model']['name']}[/bold] on {data['dataset']['name']}: {data['dataset']['samples']} items"
    )
    for line in loaded_lines(data["model"]):
        out.print(line)
    roles = simple_table("role", "blocks", "onset [95 %]", "peak", "value [95 %]", "what it is", title="Layer roles")
    for role in result.roles:
        if role.found and role.range is not None:
            roles.add_row(
                role.name,
                f"{role.range[0]}-{role.range[1]}",
                f"{role.onset} [{role.onset_low}, {role.onset_high}]{role.at_strength}",
                str(role.peak),
                f"{role.value:.3f} [{role.low:.3f}, {role.high:.3f}]",
                "found" + (f" (not compared with {', '.join(role.missing)})" if role.missing else ""),
            )
        else:
            roles.add_row(
                role.name,
                "-",
                "-",
                "-",
                "-" if role.value is None else f"{role.value:.3f}",
                f"{role.absence}: {role.reason}",
            )
    out.print(roles)
    for role, found in data["consensus"].items():
        out.print(f"Consensus: {consensus_line(role, found)}")
    left_out = {name: row["reason"] for name, row in data["measures"].items() if not row["done"]}
    for name, reason in left_out.items():
        out.print(f"Not measured: {name}: {reason}")
    order = data["order_test"]
    if order.get("told") and order.get("difference") is not None:
        out.print(
            f"Onset of {order['second']} less that of {order['first']}: {order['difference']:+.1f} blocks "
            f"[{order['low']:+.1f}, {order['high']:+.1f}]"
        )
    p_value = "" if order.get("p_value") is None else f" (p = {order['p_value']:.4f})"
    out.print(f"Order: {order['conclusion']}{p_value}\n")
    table = simple_table(
        "quadrant", "items", "perceived", "refused", "of these not refused, above harmless",
        title="By quadrant (picture, words, together: S safe, U unsafe)", right=("items",),
    )  # fmt: skip
    if data.get("perceived_note"):
        table.caption, table.caption_justify = f"perceived: {data['perceived_note']}", "left"
    backbone = data.get("backbone")
    in_words: dict[str, Any] = {}
    if backbone is not None:
        which = "backbone" if "backbone" in backbone else "lvlm_in_words"
        table.add_column("backbone refuses, in words" if which == "backbone" else "refused, in words")
        in_words = {row["quadrant"]: row["refused"] for row in backbone[which]["quadrants"]}
    for row in data["quadrants"]:
        cells = [
            row["quadrant"],
            str(row["n"]),
            _percent(row["perceived"]),
            _percent(row["refused"]),
            _percent(row["perceived_not_refused_excess"]) if row["quadrant"].endswith("U") else "-",
        ]
        if backbone is not None:
            cells.append(_percent(in_words[row["quadrant"]]) if row["quadrant"] in in_words else "-")
        table.add_row(*cells)
    out.print(table)
    causal = data["causal"]
    if causal["done"]:
        for direction, cell in causal["strongest"].items():
            what = "nothing survives" if cell is None else (
                f"{cell['position']} into block {cell['block']} carries {cell['effect']:.2f} "
                f"[{cell['low']:.2f}, {cell['high']:.2f}] of the difference"
            )  # fmt: skip
            out.print(f"Patching, {direction}: {what} ({causal['pairs']} pairs, engine {causal['engine']})")
    else:
        out.print(f"Patching: not done: {causal['reason']}")
    sasa = data["sasa"]
    out.print(f"SASA: {sasa['verdict'] if sasa['done'] else 'not done: ' + sasa['reason']}\n")
    _print_defenses(out, data["defenses"])
    seconds = sum(data["timings"].values())
    out.print(f"{len(data['figures'])} figures, result.json and curves.parquet in {result.folder}  ({seconds:.0f} s)")
    problems = left_out_line(data["dataset"].get("left_out", ""), data["dataset"]["samples"])
    out.print(
        problems + ("; all of them: dataset.problem_list in result.json" if data["dataset"].get("left_out") else "")
    )
    out.print(f"\n[bold]Found:[/bold] {of_sweep(data)}", highlight=False)
    out.print(next_line(f"lvlm-lens report {result.folder}"))
