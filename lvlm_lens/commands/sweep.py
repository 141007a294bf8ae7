"""``lvlm-lens sweep``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from .console import progress_bars
from .options import add_output_options, add_run_options, config_from, loaded_lines

if TYPE_CHECKING:
    from ..config import SweepConfig
    from ..sweep import SweepResult


def _print_defenses(console: Any, found: dict[str, Any]) -> None:
    from rich.table import Table

    if not found["done"]:
        console.print(f"Defences: not done: {found['reason']}")
        return
    setting = found["setting"]
    asked = f"{setting['harmful']} harmful and {setting['harmless']} harmless requests"
    table = Table(title=f"Defences, a first look on {asked}")
    for name in ("system", "not refused", "complied", "over-refusal", "forwards a query"):
        table.add_column(name, justify="left" if name == "system" else "right")
    for row in found["rows"]:
        forwards = row["cost"].get("forwards")
        cells = [_percent(row[key]) for key in ("attack_success", "complied", "over_refusal")]
        table.add_row(row["system"], *cells, "-" if forwards is None else f"{forwards:.1f}")
    console.print(table)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sweep."""
    add_run_options(parser)
    parser.add_argument("--blocks", help="e.g. 0-5,8,-1 (default: all)")
    parser.add_argument(
        "--positions", help="where the residual stream is read, e.g. last or question[-4:] (default: last)"
    )
    parser.add_argument("--backbone", metavar="NAME", help="language-only backbone to compare with")
    parser.add_argument(
        "--no-twin", dest="twin", action="store_const", const=False, help="leave out the random-weight twin"
    )
    parser.add_argument("--pairs", type=int, metavar="N", help="matched pairs to patch; 0 for none (default: 10)")
    parser.add_argument("--no-sasa", dest="sasa", action="store_const", const=False, help="leave SASA out")
    parser.add_argument(
        "--no-defenses", dest="defenses", action="store_const", const=False, help="leave the small defence table out"
    )
    parser.add_argument(
        "--measures", metavar="NAMES", help="default, all, or names with commas; robustness is one of them"
    )
    parser.add_argument("--folds", type=int, help="folds of the probes (default: 5)")
    parser.add_argument("--permutations", type=int, help="label shuffles of the null (default: 50)")
    parser.add_argument("--replicates", type=int, help="bootstrap replicates (default: 1000)")
    parser.add_argument("--dry-run", action="store_true", help="print forwards, time by stage and memory, and stop")
    add_output_options(parser)


def run(options: argparse.Namespace) -> int:
    """Run, and say what was found."""
    config = config_from(options)
    if options.dry_run:
        from ..estimate import estimate_sweep

        found = estimate_sweep(config)
        print(json.dumps(found, indent=2) if options.json else "\n".join(_estimate_lines(found)))
        return 0
    return run_and_print(config, options)


def _estimate_lines(found: dict[str, Any]) -> list[str]:
    """An estimate as text: bytes in words, one line a stage."""
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            lines += [f"{key:>28}  {number:g} s" for key, number in value.items()]
        elif isinstance(value, list):
            lines += [f"{'supposed':>28}  {item}" for item in value]
        elif name.endswith("bytes") or name.startswith("bytes"):
            lines.append(f"{name.replace('_', ' '):>28}  {value / 2**30:.2f} GiB")
        else:
            shown = f"{value:,}" if isinstance(value, (int, float)) else str(value)
            lines.append(f"{name.replace('_', ' '):>28}  {shown}")
    return lines


def run_and_print(config: SweepConfig, options: argparse.Namespace) -> int:
    """Run a sweep with progress bars and print it as the output options ask."""
    from ..sweep import run_sweep

    with progress_bars(options.quiet) as tell:
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
    from rich.console import Console
    from rich.table import Table

    console = Console()
    data = result.data
    console.print(
        f"\n[bold]{data['model']['name']}[/bold] on {data['dataset']['name']}: {data['dataset']['samples']} items"
    )
    for line in loaded_lines(data["model"]):
        console.print(line)
    if data["dataset"].get("left_out"):
        console.print(f"{data['dataset']['left_out']}; all of them: dataset.problem_list in result.json")
    roles = Table(
        "role",
        "blocks",
        "onset [95 %]",
        "peak",
        "value [95 %]",
        "what it is",
        title="Layer roles",
        title_justify="left",
    )
    for role in result.roles:
        if role.found and role.range is not None:
            roles.add_row(
                role.name,
                f"{role.range[0]}-{role.range[1]}",
                f"{role.onset} [{role.onset_low}, {role.onset_high}]",
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
    console.print(roles)
    for role, found in data["consensus"].items():
        console.print(f"Consensus: {consensus_line(role, found)}")
    left_out = {name: row["reason"] for name, row in data["measures"].items() if not row["done"]}
    for name, reason in left_out.items():
        console.print(f"Not measured: {name}: {reason}")
    order = data["order_test"]
    p_value = "" if order.get("p_value") is None else f" (p = {order['p_value']:.4f})"
    console.print(f"Order: {order['conclusion']}{p_value}\n")
    table = Table(
        "quadrant",
        "items",
        "perceived",
        "refused",
        "perceived, not refused",
        title="By quadrant (image, text, joint)",
        title_justify="left",
        caption=f"perceived: {data['perceived_note']}" if data.get("perceived_note") else None,
        caption_justify="left",
    )
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
            _percent(row["perceived_not_refused"]),
        ]
        if backbone is not None:
            cells.append(_percent(in_words[row["quadrant"]]) if row["quadrant"] in in_words else "-")
        table.add_row(*cells)
    console.print(table)
    causal = data["causal"]
    if causal["done"]:
        for direction, cell in causal["strongest"].items():
            what = "nothing survives" if cell is None else (
                f"{cell['position']} into block {cell['block']} carries {cell['effect']:.2f} "
                f"[{cell['low']:.2f}, {cell['high']:.2f}] of the difference"
            )  # fmt: skip
            console.print(f"Patching, {direction}: {what} ({causal['pairs']} pairs, engine {causal['engine']})")
    else:
        console.print(f"Patching: not done: {causal['reason']}")
    sasa = data["sasa"]
    console.print(f"SASA: {sasa['verdict'] if sasa['done'] else 'not done: ' + sasa['reason']}\n")
    _print_defenses(console, data["defenses"])
    seconds = sum(data["timings"].values())
    console.print(
        f"{len(data['figures'])} figures, result.json and curves.parquet in {result.folder}  ({seconds:.0f} s)"
    )
