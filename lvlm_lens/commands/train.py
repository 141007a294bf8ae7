"""``lvlm-lens train``."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from ..errors import UsageError
from ..progress import Listener, Tell
from ..training_settings import Settings
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
from .workers import add_worker_options, asked_for, run_jobs

_TRAINING = [field.name for field in fields(Settings)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the training methods."""
    add = parser.add_argument
    add("method", nargs="?", metavar="METHOD", help="a method by name, or study (--list shows them)")
    add("--list", action="store_true", help="every method: its source, what is approximated (default: no)")
    add(
        "--controls",
        action="store_true",
        help="also train the method's controls, and compare all in one table (default: no)",
    )
    add(
        "--test-split",
        default="test",
        metavar="SPLIT",
        help="with --controls, study: the split that the trained models answer (default: test)",
    )
    add("--test-limit", type=int, metavar="N", help="with --controls, study: at most N requests of it (default: all)")
    add(
        "--max-new-tokens",
        type=int,
        default=96,
        metavar="N",
        help="with --controls, study: tokens of the longest answer (default: 96)",
    )
    add("--study-method", default="sft", metavar="NAME", help="study: the method that is trained (default: sft)")
    add(
        "--windows",
        metavar="LIST",
        help="study: blocks to train, e.g. perception=3-5,expression=9-11 (default: located)",
    )
    add("--seeds", default="0,1,2", metavar="LIST", help="study: seeds (default: 0,1,2)")
    add("--dry-run", action="store_true", help="print steps, FLOPs, memory and time, and stop (default: train)")
    add_model_options(parser)
    add_settings(
        parser, ("dataset", "root", "split", "subset", "limit", "out", "seed"),
        split="what is trained on", split_unset="train where the set has it, else all",
        out="adapter folder; the same command continues it", out_unset="adapters/MODEL-METHOD",
    )  # fmt: skip
    add_settings(parser, [name for name in _TRAINING if name != "seed"], Settings)  # a seed is every command's
    add(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument of the method, repeatable (default: its own)",
    )
    add_column_options(parser)
    add_worker_options(parser)
    add_output_options(parser)


def opening(options: argparse.Namespace) -> str | None:
    """What is about to happen."""
    if options.list or options.method is None:
        return None
    what = "planned only" if options.dry_run else f"{setting(options, 'steps', Settings)} steps"
    return f"{options.method} of {options.model or 'mini'} on {setting(options, 'dataset')}, {what}; loading libraries"


def run(options: argparse.Namespace) -> int:
    """List, plan, or train; a finished folder is read and told."""
    if options.list:
        _print_methods(options.json)
        return 0
    if options.method is None:
        raise UsageError("name a method, or study; --list shows them")
    from ..train import make_method

    if options.method == "study":
        return _study(options)
    if asked_for(options):
        raise UsageError(
            "--workers and --ray share the trainings of `study`, one a worker; one training has one device"
        )
    method = make_method(options.method, **_own_options(options.option))
    job = _job(options, method.name)
    if options.dry_run:
        plan = method.plan(job)
        if options.json:
            print(json.dumps(plan.to_dict(), indent=2))
        else:
            _print_plan(method.title, plan.to_dict())
        return 0
    with progress_bars(options.quiet) as tell:
        _watched(job, method.name, tell, options.quiet)
        if options.controls:
            return _controls(method, job, options)
        record = method.train(job)
    if options.json:
        print(json.dumps(record, indent=2))
    elif not options.quiet:
        _print_record(record, job.folder)
    return 0


def _study(options: argparse.Namespace) -> int:
    """Equal budgets in the blocks of each role."""
    from ..stages.training_study import study_markdown, training_study
    from ..train import make_method

    windows: dict[str, str] | None = None
    if options.windows is not None:
        parts = [word.partition("=") for word in re.split(r",(?=[^,=]+=)", options.windows)]
        if not all(name and equals and blocks for name, equals, blocks in parts):
            raise UsageError(f"--windows {options.windows!r}; write NAME=BLOCKS,NAME=BLOCKS")
        windows = {name.strip(): blocks for name, _, blocks in parts}
    if not re.fullmatch(r"\d+(,\d+)*", options.seeds):
        raise UsageError(f"--seeds {options.seeds!r}; write whole numbers with commas")
    seeds = [int(word) for word in options.seeds.split(",")]
    method = make_method(options.study_method, **_own_options(options.option))
    job = _job(options, f"study-{method.name}")
    with progress_bars(options.quiet) as tell:
        _watched(job, f"study of {method.name}", tell, options.quiet)
        found = training_study(
            method, job, _test_part(options, job), windows, seeds=seeds, limit=options.test_limit,
            max_new_tokens=options.max_new_tokens, elsewhere=_handed_out(options, method, job),
        )  # fmt: skip
    if options.json:
        print(json.dumps(found, indent=2))
    elif not options.quiet:
        print(study_markdown(found))
        print(f"Found: {len(found['windows'])} windows, {len(seeds)} seeds each, in {job.folder / 'study.md'}")
        first = f"{next(iter(found['windows']))}-{seeds[0]}"
        print(next_line(f"lvlm-lens patch --adapter {job.folder / first} --sites adapter"))
    return 0


def _handed_out(options: argparse.Namespace, method: Any, job: Any) -> Callable[[Mapping[str, Any]], None] | None:
    """Workers that train, one training each; ``None`` where none are wanted."""
    if not asked_for(options):
        return None
    from ..scale.jobs.trainings import TrainingsJob, unwatched

    def train(trainings: Mapping[str, Any]) -> None:
        mine = {name: unwatched(training) for name, training in trainings.items()}
        run_jobs(options, [TrainingsJob(method, mine, str(job.folder.absolute()))])

    return train


def _controls(method: Any, job: Any, options: argparse.Namespace) -> int:
    """The method and its controls, in one table."""
    from ..stages.training import train_with_controls

    table = train_with_controls(
        method, job, _test_part(options, job), limit=options.test_limit, max_new_tokens=options.max_new_tokens
    )
    if options.json:
        print(json.dumps(table.to_dict(), indent=2))
    elif not options.quiet:
        print(table)
        for note in table.notes:
            print(f"note: {note}")
        print(f"Found: {len(table.rows) - 1} trainings beside the base, in {job.folder / 'table.md'}")
        print(next_line(f"lvlm-lens patch --adapter {job.folder / method.name} --sites adapter"))
    return 0


def _test_part(options: argparse.Namespace, job: Any) -> Any:
    """The split that is asked; groups that were trained on are never in it."""
    data, split = _load(options, None), options.test_split
    trained = {sample.group or sample.id for sample in job.data}
    found = data.filter(lambda s: s.split == split and (s.group or s.id) not in trained)
    if not len(found):
        raise UsageError(
            f"this data set has no {split} split apart from what is trained on; give --split with a part to train on, "
            "or a table with a split column"
        )
    return found


def _load(options: argparse.Namespace, split: str | None) -> Any:
    from ..data.registry import load_dataset

    columns: dict[str, Any] = columns_from(options)
    return load_dataset(setting(options, "dataset"), root=options.root, split=split, subset=options.subset, **columns)


def _watched(job: Any, name: str, tell: Tell, quiet: bool) -> None:
    """A bar of the training: steps, loss, time left; what is done before it goes beside it."""
    if quiet:
        return
    hear = cast(Listener, tell)
    said = [""]

    def progress(done: int, total: int, logged: Mapping[str, float]) -> None:
        loss = logged.get("loss", logged.get("train_loss"))
        hear(
            f"{name} steps",
            done,
            total,
            ", ".join([*filter(None, said), *([] if loss is None else [f"loss {loss:.4f}"])]),
        )

    def say(line: str) -> None:
        said[0] = line
        hear(f"{name} steps", 0, 0, line)

    job.progress, job.say = progress, say


def _own_options(given: list[str]) -> dict[str, Any]:
    """``NAME=VALUE`` words: numbers, true and false as such, everything else as text."""
    import yaml

    found: dict[str, Any] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"--option {word!r}; write NAME=VALUE")
        found[name] = yaml.safe_load(value)
    return found


def _job(options: argparse.Namespace, name: str) -> Any:
    from ..config import loading_options, short_name
    from ..data import Dataset
    from ..data.limits import limited
    from ..stages.inputs import best_device
    from ..train import Job

    data = _load(options, options.split)
    if options.split is None and any(sample.split == "train" for sample in data):
        data = data.train
    data = limited(data, options.limit, setting(options, "seed"))
    model = options.model or "mini"
    settings = Settings(**{name: setting(options, name, Settings) for name in _TRAINING})
    out = Path(options.out or Path("adapters") / f"{short_name(model)}-{name}").expanduser()
    loading = {"device": options.device or best_device(), **loading_options(model_options(options))}
    if options.device_map is not None:
        loading.pop("device")
    if "adapter" in loading:
        raise UsageError("--adapter: a training puts on an adapter of its own; merge the other one into a checkpoint")
    assert isinstance(data, Dataset)
    return Job(model, data, settings, out, loading, command=["lvlm-lens", *sys.argv[1:]])


def _print_methods(as_json: bool) -> None:
    from ..train.registry import method_class, method_names

    rows = []
    for name in method_names():
        kind = method_class(name)
        rows.append(
            {"name": kind.name, "title": kind.title, "source": kind.source, "approximation": kind.approximation}
        )
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = simple_table("method", "what", "source", "differs from the published one")
    for row in rows:
        table.add_row(row["name"], row["title"], row["source"], row["approximation"] or "-")
    console().print(table)
    print(f"Found: {len(rows)} methods")
    print(next_line("lvlm-lens train METHOD --dry-run"))


def _print_plan(title: str, plan: Mapping[str, Any]) -> None:
    print(f"{title}: {plan['steps']} steps on {plan['rows']} rows of {plan['tokens']:.0f} tokens")
    print(f"  learns {plan['trainable']:,} of {plan['parameters']:,} numbers")
    drawing = f", {plan['drawing']:.3g} of them for replies that are drawn" if plan["drawing"] else ""
    print(f"  {plan['flops'] + plan['drawing']:.3g} FLOPs{drawing}")
    print(f"  about {plan['peak_bytes'] / 2**30:.2f} GiB and {plan['seconds'] / 60:.1f} minutes on this machine")
    for note in plan["notes"]:
        print(f"  supposed: {note}")


def _print_record(record: Mapping[str, Any], folder: Path) -> None:
    losses = [entry["loss"] for entry in record["log"] if "loss" in entry]
    cost, audits = record["cost"], record["audits"]
    print(f"{record['method']['title']}: {cost['steps']} steps, {cost['flops']:.3g} FLOPs, {cost['seconds']:.0f} s")
    if losses:
        print(f"  loss {losses[0]:.4f} first, {losses[-1]:.4f} last")
    for row in audits["before"].get("seats", []):
        blocks = f", blocks {row['blocks']}" if row["blocks"] else ""
        print(f"  adapters: {row['count']} x {row['layer']} in the {row['part']} part{blocks}")
    if "changes_logits" in audits["after"]:
        after = audits["after"]
        print(
            f"  on a fresh base: {after['tensors']} tensors arrived, largest difference of logits with it on and off "
            f"{after['changes_logits']:.3g}, to the trained model {after['fresh_minus_trained']:.3g}"
        )
        if after["untrained"]:
            print(f"  no gradient reached {len(after['untrained'])} of them, e.g. {after['untrained'][0]}")
    found = f"loss {losses[0]:.3f} to {losses[-1]:.3f}" if losses else "no loss was logged"
    print(f"Found: an adapter in {folder}, {found} in {cost['steps']} steps")
    print(next_line(f"lvlm-lens evaluate --defense {folder}", f"lvlm-lens sweep --adapter {folder}"))
