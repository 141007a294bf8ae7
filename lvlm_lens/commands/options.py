"""Options that several commands share, so that a word means the same everywhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ..columns import USUAL
from ..config import SweepConfig, resolve_config

_COLUMNS = {
    "id": "the item's name", "text": "the words", "image": "the picture's file",
    "label": "is it harmful, taken together",
    "label_image": "is the picture harmful by itself", "label_text": "are the words harmful by themselves",
    "group": "items that belong together (kept in one fold)", "split": "train, validation or test",
    "category": "kind of harm", "counterfactual": "id of the item that differs in one thing",
    "text_only": "the same request said in words",
}  # fmt: skip
NOT_KEPT = "none, nothing is kept"
_MODEL = ("model", "adapter", "quantize", "device", "device_map", "dtype", "attn", "revision", "trust_remote_code",
          "system")  # fmt: skip
_DATA = ("dataset", "root", "split", "subset", "limit", "strict", "special_tokens")
_RUN = ("out", "seed", "batch_size")


def add_settings(parser: Any, names: Sequence[str], of: Any = SweepConfig, **words: str) -> None:
    """The options of settings of a run, made from the fields of a dataclass (:mod:`lvlm_lens.settings`).

    An option that is not given stays ``None``: a YAML file may set it, else the field's default holds.

    Args:
        parser: a parser or a group of one.
        names: fields; of: the dataclass.
        words: other words for a field's ``NAME`` or, as ``NAME_unset``, for what holds where it is not given.
    """
    known = {field.name: field for field in fields(of)}
    for name in names:
        field, about = known[name], known[name].metadata
        option = dict(about["option"])
        unset = words.get(f"{name}_unset") or about["unset"] or _shown(field.default)
        if isinstance(field.default, bool):
            option |= {"action": "store_const", "const": not field.default}
        elif str(field.type) in ("int", "int | None"):
            option["type"] = int
        elif "float" in str(field.type):
            option["type"] = float
        # argparse formats the help with %, and a setting's words may hold one
        said = f"{words.get(name, about['help'])} (default: {unset})".replace("%", "%%")
        parser.add_argument(about["word"] or f"--{name.replace('_', '-')}", dest=name, help=said, **option)


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """``--json`` and ``--quiet``."""
    add = parser.add_argument_group("output").add_argument
    add("--json", action="store_true", help="print the result as JSON on standard output (default: tables)")
    add("--quiet", action="store_true", help="no first line, no progress bars, no summary (default: all three)")


def setting(options: argparse.Namespace, name: str, of: Any = SweepConfig) -> Any:
    """What an option of :func:`add_settings` was given, else its field's default."""
    given = getattr(options, name)
    return getattr(of, name) if given is None else given


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model, and how it is loaded: of every command that runs one."""
    add_settings(parser.add_argument_group("model"), _MODEL)


def model_options(options: argparse.Namespace) -> dict[str, Any]:
    """The words of :func:`add_model_options` that were given, as settings of a run."""
    names = [name for name in _MODEL if name not in ("model", "device")]
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


def add_run_options(parser: argparse.ArgumentParser, **words: str) -> None:
    """Model, data and run options of every command that runs a model over a data set; ``words``: see above."""
    add_model_options(parser)
    add_settings(parser.add_argument_group("data"), _DATA, **words)
    group = parser.add_argument_group("run")
    add_settings(group, _RUN, **words)
    group.add_argument("--config", metavar="FILE", help="YAML file of settings; flags win (default: none)")
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
