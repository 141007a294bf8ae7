"""``lvlm-lens reproduce``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .console import console, progress_bars, simple_table
from .options import (
    add_column_options,
    add_model_options,
    add_output_options,
    add_settings,
    columns_from,
    model_options,
    next_line,
    setting,
)
from .workers import add_worker_options, asked_for, run_jobs, shared_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the recipes."""
    add = parser.add_argument
    add("paper", nargs="?", metavar="PAPER", help="a recipe by name, or all (--list shows them)")
    add("--list", action="store_true", help="every recipe: paper, data, state in the run folder (default: no)")
    add("--dry-run", action="store_true", help="what the published setting costs on LLaVA-1.5-7B (default: run)")
    add("--tflops", type=float, default=100.0, metavar="T", help="sustained TFLOP/s for --dry-run (default: 100)")
    add_model_options(parser)
    add_settings(
        parser.add_argument_group("data"), ("root", "dataset", "limit"),
        root="folder of the published files, or of one subfolder a set", root_unset="stand-ins",
        dataset_unset="the paper's own", limit="at most N items a part, whole groups",
    )  # fmt: skip
    group = parser.add_argument_group("run")
    add_settings(group, ("out", "seed", "batch_size"), out_unset="figures/reproduce-MODEL")
    add = group.add_argument
    add("--judge", metavar="URL|NAME", help="judge: an OpenAI-compatible address, or a model (default: words)")
    add("--judge-model", default="", metavar="NAME", help="model name sent to the judge's address (default: none)")
    add("--max-new-tokens", type=int, default=32, metavar="N", help="longest answer (default: 32)")
    add_column_options(parser)
    add_worker_options(parser)
    add_output_options(parser)


def opening(options: argparse.Namespace) -> str | None:
    """What is about to happen."""
    if options.list or options.dry_run or options.paper is None:
        return "recipes; loading libraries"
    from ..config import short_name

    name = options.model or "mini"
    place = options.out or f"figures/reproduce-{short_name(name)}"
    return f"{options.paper} on {name}, into {place}; loading libraries, model and data"


def run(options: argparse.Namespace) -> int:
    """List, estimate, or run; a failure among several is counted in the exit code (1)."""
    from ..config import loading_options, short_name
    from ..recipes.registry import find_recipe, recipes

    name = options.model or "mini"
    folder = Path(options.out or Path("figures") / f"reproduce-{short_name(name)}").expanduser()
    if options.list:
        from ..recipes.running import listing

        _print_list(listing(folder, options.root), options.json)
        return 0
    if options.paper is None:
        raise UsageError("name a paper, or all; --list shows them")
    chosen = recipes() if options.paper.casefold() == "all" else [find_recipe(options.paper)]
    if options.dry_run:
        if options.tflops <= 0:
            raise UsageError(f"--tflops is {options.tflops:g}; give the sustained speed in TFLOP/s, above 0")
        _print_costs([recipe.cost(options.tflops) for recipe in chosen], options.json)
        return 0
    if options.limit is not None and options.limit < 4:
        raise UsageError(f"--limit is {options.limit}; a recipe needs at least 4 items")
    for word, given in (("batch-size", setting(options, "batch_size")), ("max-new-tokens", options.max_new_tokens)):
        if given < 1:
            raise UsageError(f"--{word} is {given}; give at least 1")
    with progress_bars(options.quiet):
        from ..recipes.running import Request, reproduce
        from ..stages.inputs import best_device

        request = Request(
            model=name,
            root=options.root,
            dataset=options.dataset,
            columns=columns_from(options),
            limit=options.limit,
            seed=setting(options, "seed"),
            judge=options.judge,
            judge_model=options.judge_model,
            device=options.device or best_device(),
            loading=loading_options(model_options(options)),
            batch_size=setting(options, "batch_size"),
            max_new_tokens=options.max_new_tokens,
        )
        command = ["lvlm-lens", *sys.argv[1:]]
        if asked_for(options):
            from ..scale.jobs.recipes import RecipesJob

            shared = shared_folder(folder, "reproduce")
            run_jobs(options, [RecipesJob(request, shared, tuple(recipe.name for recipe in chosen), tuple(command))])
        report = reproduce(chosen, request, folder, command)
    found = report.to_dict()
    if options.json:
        print(json.dumps(found, indent=2))
    elif not options.quiet:
        _print_report(found, folder)
    for row in report.failed:
        print(f"lvlm-lens reproduce {row['name']}: {row['error']}", file=sys.stderr)
    return 1 if report.failed else 0


def _print_list(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = simple_table("recipe", "paper", "data sets", "state")
    for row in rows:
        data = ", ".join(f"{name} ({state})" for name, state in row["data"].items())
        table.add_row(row["name"], f"{row['title']}, {row['source']}", data, row["state"])
    console().print(table)
    print("without --root a part of the embedded set stands in; `lvlm-lens datasets NAME` says what to download")
    done = sum(row["state"] not in ("not run", "missing") for row in rows)
    print(f"Found: {len(rows)} recipes, {done} begun or done in this run folder")
    print(next_line(f"lvlm-lens reproduce {rows[0]['name']} --dry-run"))


def _print_costs(costs: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(costs if len(costs) > 1 else costs[0], indent=2))
        return
    first = costs[0]
    table = simple_table(
        "recipe", "forwards", "decoding steps", "PFLOP", "hours", "disk, GB",
        title=f"Published settings on {first['model']} ({first['parameters'] / 1e9:.2f} B parameters), "
        f"{first['tflops_assumed']:g} TFLOP/s sustained",
    )  # fmt: skip
    for row in costs:
        table.add_row(
            row["recipe"], f"{row['forwards']:,}", f"{row['decoding_steps']:,}", f"{row['flops'] / 1e15:,.0f}",
            f"{row['hours']:.2f}", f"{row['disk_bytes'] / 1e9:.2f}",
        )  # fmt: skip
    out = console()
    out.print(table)
    if len(costs) == 1:
        passes = simple_table("pass", "prompts", "tokens per prompt", "decoding steps", "PFLOP")
        for one in first["passes"]:
            passes.add_row(
                one["what"], f"{one['prompts']:,}", str(one["prompt_tokens"]), f"{one['decoding_steps']:,}",
                f"{one['flops'] / 1e15:,.1f}",
            )  # fmt: skip
        out.print(passes)
    print(
        f"weights {first['weight_bytes'] / 1e9:.1f} GB in bfloat16; assumed: {first['assumed']}; decoding is bound by "
        "memory and takes longer at small batches"
    )


def _print_report(found: dict[str, Any], folder: Path) -> None:
    from ..report.findings import of_reproduction

    table = simple_table("recipe", "claim", "why", "numbers")
    for row in found["recipes"]:
        claim, numbers = row["verdict"]["claim"], row["verdict"]["numbers"]
        table.add_row(row["name"], claim["state"], claim["reason"], numbers["state"])
    console().print(table)
    lost = [f"{row['name']}: {note}" for row in found["recipes"] for note in row["notes"] if "had no answer" in note]
    print("\n".join([f"Left out: {line}" for line in lost] or ["Left out: no request"]))
    print(f"Tables and figures in {folder}")
    print(f"Found: {of_reproduction(found)}")
    print(next_line(f"lvlm-lens report {folder}"))
