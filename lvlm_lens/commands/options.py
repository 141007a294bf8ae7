"""Options that several commands share, so that a word means the same everywhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from ..config import HANDLING, SweepConfig, resolve_config

_COLUMNS = (
    "id", "text", "image", "label", "label_image", "label_text", "group", "split", "category", "counterfactual",
    "text_only",
)  # fmt: skip


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """``--json`` and ``--quiet``."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress bars and no summary")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model, and how it is loaded: of every command that runs one."""
    add = parser.add_argument
    add("--model", metavar="NAME", help="embedded name, checkpoint folder, GGUF file or hub id (default: mini)")
    add("--adapter", metavar="DIR", help="PEFT adapter for the model: folder with adapter_config.json")
    add("--quantize", choices=("4bit", "8bit"), help="quantise while loading, with bitsandbytes")
    add("--device", help="cpu, cuda, cuda:1 ... (default: cuda where there is one)")
    add("--device-map", metavar="MAP", help='auto, balanced, or JSON such as {"": 0, "lm_head": "cpu"}; disk too')
    add("--dtype", help="float32, bfloat16, float16 or auto, the checkpoint's own (default: auto)")
    add("--attn", metavar="KERNEL", help="attention kernel: sdpa, eager, flash_attention_2 ... (default: the model's)")
    add("--revision", help="hub revision of the model")
    add("--trust-remote-code", action="store_const", const=True, help="run Python code that comes with the checkpoint")
    add("--system", metavar="TEXT", help="system prompt of every request")


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


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Model, data and run options of every command that runs a model over a data set."""
    defaults = SweepConfig()
    add = parser.add_argument
    add_model_options(parser)
    add("--dataset", metavar="NAME", help="registered name, file or hub id (default: mini)")
    add("--root", metavar="DIR", help="folder of the data set's files, or of a table's images")
    add("--split", help="train, validation, test ... where the set has splits (default: all)")
    add("--subset", help="a part of the data set by its own name")
    add("--out", metavar="DIR", help="run folder (default: figures/MODEL-DATASET)")
    add("--limit", type=int, metavar="N", help="at most N items, whole groups at a time")
    add("--seed", type=int, help=f"seed of everything random (default: {defaults.seed})")
    add("--batch-size", type=int, metavar="N", help=f"rows a forward (default: {defaults.batch_size})")
    add("--strict", action="store_const", const=True, help="stop at the first record that cannot be used")
    add("--special-tokens", choices=HANDLING, help="words that hold a special token: refuse the sample, or escape it")
    add("--config", metavar="FILE", help="YAML file of settings; flags win")
    add_column_options(parser)


def add_column_options(parser: argparse.ArgumentParser) -> None:
    """Which column of a user's own table holds what."""
    columns = parser.add_argument_group("columns of a table (CSV, JSONL, JSON, Parquet)")
    for name in _COLUMNS:
        columns.add_argument(f"--{name.replace('_', '-')}-column", metavar="COLUMN", help=f"column of the {name}")


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
