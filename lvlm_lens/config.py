"""Settings of a sweep: one flat record, from defaults, a YAML file and flags, in rising order of weight."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from .errors import UsageError, near_matches
from .settings import setting

Handling = Literal["refuse", "escape"]
HANDLING: tuple[Handling, ...] = ("refuse", "escape")
"""What is done with a sample whose words hold a special token (:mod:`lvlm_lens.models.special_text`)."""
MATCHES = ("nuisance",)
"""What harmful and harmless items can be made alike in."""


@dataclass(frozen=True)
class SweepConfig:
    """What a sweep runs on and how: the one place of the names, defaults and meanings that commands share.

    A field is a key of a YAML file and, with dashes, an option of the command line
    (:func:`lvlm_lens.commands.options.add_settings` makes it from the field's metadata); ``columns`` names the data
    columns of a table by meaning (``text``, ``image``, ``label``, ``group`` ...).  ``lvlm-lens sweep --help`` lists
    them all.
    """

    model: str = setting("mini", "embedded name, checkpoint folder, GGUF file or hub id", metavar="NAME")
    dataset: str = setting("mini", "registered name, file or hub id", metavar="NAME")
    root: str | None = setting(
        None, "folder of the set's files, or of a table's images", "$LVLM_LENS_DATA", metavar="DIR"
    )
    split: str | None = setting(None, "train, validation, test ... where the set has splits", "all")
    subset: str | None = setting(None, "a part of the data set by its own name", "all")
    out: str | None = setting(None, "run folder; the same command continues it", "figures/MODEL-DATASET", metavar="DIR")
    limit: int | None = setting(None, "at most N items, whole groups at a time", "all", metavar="N")
    match: str | None = setting(
        None, "keep equally many harmful and harmless items alike in length, picture size, brightness", "no",
        choices=MATCHES,
    )  # fmt: skip
    blocks: str | None = setting(None, "e.g. 0-5,8,-1", "all")
    positions: str = setting("last", "where the residual stream is read, e.g. last or question[-4:]")
    seed: int = setting(0, "seed of everything random")
    device: str | None = setting(None, "cpu, cuda, cuda:1 ...", "cuda where there is one")
    dtype: str = setting("auto", "float32, bfloat16, float16 or auto, the checkpoint's own")
    revision: str | None = setting(None, "hub revision of the model", "the newest")
    device_map: str | None = setting(
        None, 'auto, balanced, or JSON such as {"": 0, "lm_head": "disk"}', "no", metavar="MAP"
    )
    attn: str | None = setting(
        None, "attention kernel: sdpa, eager, flash_attention_2 ...", "the model's", metavar="KERNEL"
    )
    trust_remote_code: bool = setting(False, "run Python code that comes with the checkpoint", "no")
    adapter: str | None = setting(None, "PEFT adapter: folder with adapter_config.json", "none", metavar="DIR")
    quantize: str | None = setting(None, "quantise while loading, with bitsandbytes", "no", choices=("4bit", "8bit"))
    system: str | None = setting(None, "system prompt of every request", "none", metavar="TEXT")
    batch_size: int = setting(
        32, "rows per forward; patch grids take as many pairs at once as memory allows", metavar="N"
    )
    backbone: str | None = setting(
        None, "language-only backbone to compare with", "the embedded model's own", metavar="NAME"
    )
    twin: bool = setting(True, "leave out the random-weight twin", "measured", "--no-twin")
    pairs: int = setting(10, "matched pairs to patch; 0 for none", metavar="N")
    sasa: bool = setting(True, "leave SASA out", "measured", "--no-sasa")
    defenses: bool = setting(True, "leave the small defence table out", "made", "--no-defenses")
    measures: str = setting("default", "default, all, or names with commas, also robustness", metavar="NAMES")
    folds: int = setting(5, "folds of the probes")
    permutations: int = setting(50, "label shuffles of the null")
    replicates: int = setting(1000, "bootstrap replicates")
    strict: bool = setting(False, "stop at the first bad record", "leave it out")
    special_tokens: Handling = setting(
        "refuse", "words that hold a special token: refuse the sample, or escape it", choices=HANDLING
    )
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for spec in fields(self):
            known = _TYPES.get(str(spec.type))
            if known is not None:
                _check_type(spec.name, getattr(self, spec.name), known)
        if self.special_tokens not in HANDLING:
            raise UsageError(f"special_tokens is {self.special_tokens!r}; write {' or '.join(HANDLING)}")
        if self.match not in (None, *MATCHES):
            raise UsageError(f"match is {self.match!r}; write {' or '.join(MATCHES)}, or leave it out")
        for name, least in (("batch_size", 1), ("pairs", 0), ("folds", 2), ("permutations", 20), ("replicates", 100)):
            value = getattr(self, name)
            if value < least:
                raise UsageError(f"{name} is {value!r}; give a whole number of at least {least}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed is {self.seed}; give a whole number from 0 to 2^32 - 1")
        if self.limit is not None and self.limit < 2:
            raise UsageError(f"limit is {self.limit}; at least two items are needed")

    @property
    def loading(self) -> dict[str, Any]:
        """How :meth:`~lvlm_lens.lens.LVLM.from_pretrained` is to load the model, the device apart."""
        return loading_options(asdict(self))

    @property
    def folder(self) -> Path:
        """The run folder."""
        if self.out is not None:
            return Path(self.out).expanduser()
        model = short_name(self.model) + ("" if self.adapter is None else f"+{short_name(self.adapter)}")
        return Path("figures") / f"{model}-{short_name(self.dataset)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for YAML and JSON."""
        data = asdict(self)
        data["columns"] = dict(self.columns)
        return data


def loading_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under their names here to arguments under the names of ``LVLM.from_pretrained``."""
    names = {name: name for name in ("dtype", "revision", "device_map", "trust_remote_code", "adapter", "quantize")}
    names |= {"attn": "attn_implementation", "system": "system"}
    return {there: settings[here] for here, there in names.items() if settings.get(here) is not None}


_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "str | None": ((str, type(None)), "text"),
    "int": ((int,), "a whole number"),
    "int | None": ((int, type(None)), "a whole number"),
    "bool": ((bool,), "true or false"),
    "Handling": ((str,), "text"),
    "Mapping[str, str]": ((Mapping,), "keys and values"),
}
"""What a setting of each declared type may be, and the word for it."""


def _check_type(name: str, value: Any, known: tuple[tuple[type, ...], str]) -> None:
    """Raise :class:`UsageError` for a value of another type: a YAML file can hold anything."""
    kinds, words = known
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        hint = "; put it in quotes" if str in kinds and isinstance(value, (int, float)) else ""
        raise UsageError(f"{name} is {value!r}; give {words}{hint}")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str) or not isinstance(item, str):
                raise UsageError(f"{name} holds {key!r}: {item!r}; give the name of a column, as text")


def short_name(name: str) -> str:
    """A file-name-safe short form of a model or data set name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", Path(name).stem if Path(name).suffix in _FILES else Path(name).name).strip(
        "-"
    )


_FILES = {".csv", ".tsv", ".json", ".jsonl", ".parquet"}


def resolve_config(file: str | None, flags: Mapping[str, Any]) -> SweepConfig:
    """Defaults, then the YAML file, then the flags that were given (not ``None``).

    Raises :class:`UsageError` for an unreadable file or an unknown key (with near matches).
    """
    values: dict[str, Any] = {}
    if file is not None:
        import yaml

        try:
            loaded = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
            raise UsageError(f"config file {file!r} cannot be read: {error}") from error
        if loaded is not None and not isinstance(loaded, dict):
            raise UsageError(f"config file {file!r} must hold keys and values, not a {type(loaded).__name__}")
        values.update(loaded or {})
    values.update({name: value for name, value in flags.items() if value is not None})
    known = {f.name for f in fields(SweepConfig)}
    if isinstance(values.get("blocks"), int) and not isinstance(values["blocks"], bool):
        values["blocks"] = str(values["blocks"])  # one block, as YAML reads it
    for name in values:
        if name not in known:
            raise UsageError(f"no setting {name!r}{near_matches(name, known)}; settings: {', '.join(sorted(known))}")
    return replace(SweepConfig(), **values)


def parse_blocks(text: str | None, n_blocks: int) -> list[int] | None:
    """``0-5,8,-1`` to block numbers, ascending; ``None`` stays ``None`` (all)."""
    if text is None:
        return None
    chosen: set[int] = set()
    for part in str(text).split(","):
        match = re.fullmatch(r"\s*(-?\d+)(?:\s*-\s*(\d+))?\s*", part)
        if not match:
            raise UsageError(f"blocks {text!r}: {part!r} is neither a block nor a range such as 3-7")
        start = int(match[1])
        numbers = range(start, int(match[2]) + 1) if match[2] is not None else [start]
        for number in numbers:
            block = number + n_blocks if number < 0 else number
            if not 0 <= block < n_blocks:
                raise UsageError(f"blocks {text!r}: block {number} does not exist; this model has 0 to {n_blocks - 1}")
            chosen.add(block)
    if not chosen:
        raise UsageError(f"blocks {text!r} names no block")
    return sorted(chosen)
