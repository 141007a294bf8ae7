"""Options that several commands share, so that a word means the same everywhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from ..columns import USUAL
from ..config import HANDLING, SweepConfig, resolve_config

_COLUMNS = {
    "id": "the item's name", "text": "the words", "image": "the picture's file",
    "label": "is it harmful, taken together",
    "label_image": "is the picture harmful by itself", "label_text": "are the words harmful by themselves",
    "group": "items that belong together (kept in one fold)", "split": "train, validation or test",
    "category": "kind of harm", "counterfactual": "id of the item that differs in one thing",
    "text_only": "the same request said in words",
}  # fmt: skip
_DEFAULTS = SweepConfig()


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """``--json`` and ``--quiet``."""
    add = parser.add_argument_group("output").add_argument
    add("--json", action="store_true", help="print the result as JSON on standard output (default: tables)")
    add("--quiet", action="store_true", help="no first line, no progress bars, no summary (default: all three)")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model, and how it is loaded: of every command that runs one."""
    add = parser.add_argument_group("model").add_argument
    add("--model", metavar="NAME", help="embedded name, checkpoint folder, GGUF file or hub id (default: mini)")
    add("--adapter", metavar="DIR", help="PEFT adapter: folder with adapter_config.json (default: none)")
    add("--quantize", choices=("4bit", "8bit"), help="quantise while loading, with bitsandbytes (default: no)")
    add("--device", help="cpu, cuda, cuda:1 ... (default: cuda where there is one)")
    add("--device-map", metavar="MAP", help='auto, balanced, or JSON such as {"": 0, "lm_head": "disk"} (default: no)')
    add("--dtype", help="float32, bfloat16, float16 or auto, the checkpoint's own (default: auto)")
    add("--attn", metavar="KERNEL", help="attention kernel: sdpa, eager, flash_attention_2 ... (default: the model's)")
    add("--revision", help="hub revision of the model (default: the newest)")
    add(
        "--trust-remote-code", action="store_const", const=True,
        help="run Python code that comes with the checkpoint (default: no)",
    )  # fmt: skip
    add("--system", metavar="TEXT", help="system prompt of every request (default: none)")


def model_options(options: argparse.Namespace) -> dict[str, Any]:
    """The words of :func:`add_model_options` that were given, as settings of a run."""
    names = ("adapter", "quantize", "device_map", "dtype", "attn", "revision", "trust_remote_code", "system")
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def say_loaded(model: Any, quiet: bool) -> None:
    """One line on standard error for each thing about the loaded model that a person should know."""
    for line in [] if quiet else loaded_lines(model.provenance()):
        print(line, file=sys.stderr)


def loaded_lines(model: Mapping[str, Any]) -> list[str]:
    """What a person should know about how a model was loaded, from its record in a result."""
    lines = []
    adapter = model.get("adapter")
    if adapter is not None:
        lines.append(
            f"Adapter {adapter['name']} ({adapter['kind']}, {adapter['tensors']} tensors, trained on "
            f"{adapter['trained_on'] or 'a base it does not name'}): largest difference of logits with it on and off "
            f"{adapter['largest_difference']:.3g}"
        )
    if model.get("quantized") is not None:
        lines.append(f"Weights are quantised: {model['quantized']}")
    return lines


def add_run_options(
    parser: argparse.ArgumentParser,
    out: str = "default: figures/MODEL-DATASET",
    limit: str = "at most N items, whole groups at a time (default: all)",
) -> None:
    """Model, data and run options of every command that runs a model over a data set."""
    add_model_options(parser)
    add = parser.add_argument_group("data").add_argument
    add("--dataset", metavar="NAME", help="registered name, file or hub id (default: mini)")
    add("--root", metavar="DIR", help="folder of the set's files, or of a table's images (default: $LVLM_LENS_DATA)")
    add("--split", help="train, validation, test ... where the set has splits (default: all)")
    add("--subset", help="a part of the data set by its own name (default: all)")
    add("--limit", type=int, metavar="N", help=limit)
    add(
        "--strict",
        action="store_const",
        const=True,
        help="stop at the first bad record (default: leave it out)",
    )
    add(
        "--special-tokens", choices=HANDLING,
        help=f"words that hold a special token: refuse the sample, or escape it (default: {_DEFAULTS.special_tokens})",
    )  # fmt: skip
    add = parser.add_argument_group("run").add_argument
    add("--out", metavar="DIR", help=f"run folder; the same command continues it ({out})")
    add("--seed", type=int, help=f"seed of everything random (default: {_DEFAULTS.seed})")
    add("--batch-size", type=int, metavar="N", help=f"rows per forward (default: {_DEFAULTS.batch_size})")
    add("--config", metavar="FILE", help="YAML file of settings; flags win (default: none)")
    add_column_options(parser)


def add_column_options(parser: argparse.ArgumentParser) -> None:
    """Which column of a user's own table holds what."""
    columns = parser.add_argument_group("columns of a table (CSV, JSONL, JSON, Parquet)")
    for name, meaning in _COLUMNS.items():
        columns.add_argument(
            f"--{name.replace('_', '-')}-column", metavar="COLUMN",
            help=f"{meaning} (default: {', else '.join(USUAL[name])})",
        )  # fmt: skip


def columns_from(options: argparse.Namespace) -> dict[str, str]:
    """The columns that were named."""
    given = vars(options)
    return {name: given[f"{name}_column"] for name in _COLUMNS if given.get(f"{name}_column") is not None}


def config_from(options: argparse.Namespace, more: Mapping[str, Any] | None = None) -> SweepConfig:
    """The resolved configuration of the parsed options."""
    given = vars(options)
    columns = columns_from(options)
    known = SweepConfig.__dataclass_fields__
    flags = {name: value for name, value in given.items() if name in known}
    if columns:
        flags["columns"] = columns
    return resolve_config(given.get("config"), {**flags, **(more or {})})


def run_opening(options: argparse.Namespace, into: str | None = None, **more: Any) -> str:
    """The first line of a command that runs a model over data: what, on what, into where."""
    config = config_from(options, more)
    there = f", into {into or config.out}"
    if getattr(options, "dry_run", False):
        there = "; a dry run, nothing is written"
    elif into is None and config.out is None:
        there = "; nothing is kept (--out DIR keeps it)"
    return f"{config.model} on {config.dataset}{there}; loading libraries, model and data"


def left_out_line(text: str, count: int | None = None) -> str:
    """The count of records that were left out, for the end of a command: also where there are none."""
    if text:
        return f"Left out: {text}"
    return "Left out: no record" if count is None else f"Left out: none of {count:,} records"


def next_line(*commands: str) -> str:
    """What to type next."""
    return "Next: " + "\n      ".join(commands)
