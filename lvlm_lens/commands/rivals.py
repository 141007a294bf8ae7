"""``lvlm-lens rivals``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .console import console, progress_bars, simple_table
from .options import add_output_options, add_run_options, config_from, left_out_line, next_line, run_opening


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the comparison."""
    add_run_options(parser, out_unset="figures/MODEL-DATASET-rivals")
    add = parser.add_argument_group("claims").add_argument
    add("--rivals", default="all", metavar="NAME[,NAME]", help="claims by name, or all (default: all)")
    add("--draws", type=int, default=40, metavar="N", help="halves of the data, and label shuffles (default: 40)")
    add("--list", action="store_true", help="list the claims, also those not asked, and stop (default: no)")
    add("--constructed", type=int, metavar="N", help="ask on N models of known answer (default: on --model)")
    add_output_options(parser)


def opening(options: argparse.Namespace) -> str | None:
    """What is about to happen."""
    if options.list:
        return None
    if options.constructed is not None:
        return f"{options.constructed} constructed models; loading libraries"
    folder = config_from(options).folder
    return run_opening(options, str(options.out or folder.with_name(folder.name + "-rivals")))


def run(options: argparse.Namespace) -> int:
    """Compare, draw, and print the table."""
    from ..errors import UsageError
    from ..rivals.registry import choose

    procedures = choose(options.rivals)
    if options.list:
        return _list(options)
    if options.draws < 10:
        raise UsageError(f"--draws is {options.draws}; an interval needs at least 10")
    if options.constructed is not None:
        return _constructed(options, procedures)
    config = config_from(options)
    with progress_bars(options.quiet):
        from ..rivals.run import compare_rivals

        result = compare_rivals(config, procedures, options.draws, ["lvlm-lens", *sys.argv[1:]])
    if options.json:
        print(json.dumps(result.data, indent=2))
    elif not options.quiet:
        print_rivals(result.data)
        print(f"rivals.json, rivals.csv, values.parquet and the figure in {result.folder}")
        print(left_out_line(result.data["dataset"].get("left_out", ""), result.data["dataset"]["samples"]))
        placed = sum(row["first"] is not None for row in result.data["rivals"])
        print(f"Found: {placed} of {len(result.data['rivals'])} procedures place something in this model")
        print(next_line(f"lvlm-lens sweep --model {config.model} --dataset {config.dataset}"))
    return 0


def print_rivals(data: dict[str, Any]) -> None:
    """Two tables: published and found, and how steady; then what models of known answer say of each procedure."""
    out = console()
    counts = data["dataset"]["harmful"], data["dataset"]["harmless"]
    table = simple_table(
        "claim", "published, % of depth", "here: blocks [95 % of halves]", "% of depth", "in halves",
        "in shuffled", "n",
        title=f"{data['model']['name']} on {data['dataset']['name']}: {counts[0]} harmful, {counts[1]} harmless, "
        f"{data['n_blocks']} blocks",
    )  # fmt: skip
    for row in data["rivals"]:
        published = ", ".join(_depths(*claim["depths"]) for claim in row["published"]) or "none"
        steady = _percent(row["in_halves"]), _percent(row["in_shuffled"])
        table.add_row(
            row["title"], published, _range(row), _depths(row["depth_first"], row["depth_last"]), *steady,
            str(row["n"] or "-"),
        )  # fmt: skip
    out.print(table)
    for row in data["rivals"]:
        if row["state"] == "not asked":
            out.print(f"{row['title']}: not asked: {row['reason']}")
        elif row["note"]:
            out.print(f"{row['title']}: {row['note']}")
    out.print(planted_table(data["rivals"]))
    for name, why in data["not_found"].items():
        out.print(f"{name}: not asked: {why}")


def planted_table(rows: list[dict[str, Any]]) -> Any:
    """What the recorded constructed models say: does the range hold the true block, how wide is it, false alarms."""
    table = simple_table(
        "claim", "holds, few pairs", "holds, many", "weak signal", "strong signal", "error (mean, size)", "width",
        "false alarms",
        title="The same procedures on models whose answer is known (share of models; ranges one block wider)",
    )  # fmt: skip
    for row in rows:
        known = row["constructed"]
        many = known["many_pairs"]
        if many is None or not many["asked"]:
            table.add_row(row["title"], "not asked", *["-"] * 6)
            continue
        error = "-" if many["error"] is None else f"{many['bias']:+.1f}, {many['error']:.1f}"
        holds = [_share(known[key], "holds") for key in ("few_pairs", "many_pairs", "weak", "strong")]
        table.add_row(row["title"], *holds, error, _percent(many["width"]), _share(many, "false_alarms"))
    return table


def _share(row: dict[str, Any] | None, key: str) -> str:
    if row is None or row[key]["value"] is None:
        return "-"
    return f"{row[key]['count']} of {row[key]['n']}"


def _depths(first: float | None, last: float | None) -> str:
    if first is None or last is None:
        return "-"
    return f"{100 * first:.0f}" if first == last else f"{100 * first:.0f}-{100 * last:.0f}"


def _range(row: dict[str, Any]) -> str:
    if row["first"] is None:
        return "nothing found" if row["state"] == "nothing" else "-"
    if row["state"] == "placed":
        return f"{row['first']}-{row['last']} (set by depth; largest at {row['peak']})"
    ends = []
    for end in ("first", "last"):
        low, high = row[f"{end}_low"], row[f"{end}_high"]
        ends.append(f"{row[end]}" + ("" if low is None else f" [{low}, {high}]"))
    return " to ".join(ends)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _planted(row: dict[str, Any] | None) -> str:
    """The recorded row in words."""
    if row is None or not row["asked"]:
        return "not asked"
    holds, alarms = row["holds"]["value"], row["false_alarms"]["value"]
    parts = [f"holds the truth {_percent(holds)}", f"width {_percent(row['width'])}"]
    if row["error"] is not None:
        parts.append(f"error {row['bias']:+.1f} ({row['error']:.1f})")
    return ", ".join([*parts, f"false alarms {_percent(alarms)}"])


def _constructed(options: argparse.Namespace, procedures: list[Any]) -> int:
    """The study on constructed models; its record is what the table of every run quotes."""
    from ..provenance import environment
    from ..rivals.planted import run_planted
    from ..storage.commit import write_atomic

    folder = Path(options.out) if options.out is not None else None
    trials = None if folder is None else folder / "trials"
    seed = 5 if options.seed is None else options.seed
    with progress_bars(options.quiet) as tell:
        found = run_planted(procedures, options.constructed, seed=seed, out=trials, progress=tell)
    words = ["lvlm-lens", "rivals", "--constructed", str(options.constructed)]
    kept = {key: value for key, value in found.items() if key != "trials"}
    kept["environment"] = environment(seed, words)
    if folder is not None:
        write_atomic(folder / "planted.json", json.dumps(kept, indent=1, allow_nan=False) + "\n")
    if options.json:
        print(json.dumps(found, indent=2, allow_nan=False))
    elif not options.quiet:
        for row in found["rows"]:
            strength = "all" if row["separation"] is None else f"{row['separation']:g} sd"
            print(f"{row['procedure']:15s} {row['pairs']:4d} pairs  {strength:7s} {_planted(row)}")
    return 0


def _list(options: argparse.Namespace) -> int:
    from ..rivals.registry import NOT_FOUND, PROCEDURES

    if options.json:
        rows = [{"name": p.name, "title": p.title, "source": p.source, "claim": p.claim, "rule": p.rule}
                for p in PROCEDURES.values()]  # fmt: skip
        print(json.dumps({"rivals": rows, "not_found": dict(NOT_FOUND)}, indent=2))
        return 0
    for p in PROCEDURES.values():
        print(f"{p.name} ({p.title}; {p.source})\n  claim: {p.claim}\n  rule:  {p.rule}")
    for name, why in NOT_FOUND.items():
        print(f"{name}: not asked\n  {why}")
    return 0
