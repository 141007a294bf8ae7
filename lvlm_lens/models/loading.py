"""From a name to a model and its processor: what is looked up, what is held against what, what is refused.

Nothing large is built before small files have been read: the configuration's counts are held against
the names of the tensors that lie in the checkpoint, so a configuration of a thousand million blocks is a
message and not a hang.  After loading, every weight must have come from the checkpoint: transformers
draws a missing one at random and goes on, and nothing that is measured on such a model could be trusted.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ..errors import ModelError, UsageError, near_matches
from .adapters import CONFIG, AdapterRecord, attach, is_adapter, read_config
from .extras import needs
from .mini import mini_backbone_path, mini_path
from .placement import hold_device, hold_places, offload_options, read_device_map, spread
from .processors import load_processor
from .quantized import check_stored, fit_to_cpu, quantization_config
from .smol import origin, smol_base_path, smol_path, smol_text_path
from .templates import dated, hold_template

EMBEDDED = {
    "mini": mini_path,
    "mini-backbone": mini_backbone_path,
    "smol": smol_path,
    "smol-text": smol_text_path,
    "smol-base": smol_base_path,
}
"""Models that come with the package, by name; those around SmolLM2 once its weights are fetched."""

BACKBONES = {"mini": "mini-backbone", "smol": "smol-text"}
"""The language-only backbone that an embedded vision-language model is compared with."""

_COUNTS = {"num_hidden_layers", "num_layers", "n_layer", "n_layers", "depth", "encoder_layers", "decoder_layers"}
_LARGEST_HEADER = 100 * 2**20  # safetensors' own limit
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ImportError,
    RuntimeError,
    RecursionError,
    AssertionError,
    SafetensorError,
)
"""What transformers raises on files that it cannot use; anything else is a defect and keeps its traceback."""


@dataclass(frozen=True)
class Checkpoint:
    """What was loaded.

    Attributes:
        model: the plain Hugging Face model.
        processor: its processor, or the tokenizer of a text-only model.
        name: how results call it.
        revision: the commit it came from, where that is known.
        warnings: what a result must say about the loading (tensors of the checkpoint that the model has no place for).
        base: what fetched weights were made of (``smol``), else ``None``.
        adapter: PEFT's wrapper of the model and what a result says about it, where an adapter was asked for.
        quantized: the quantiser of its weights, or ``None``.
    """

    model: Any
    processor: Any
    name: str
    revision: str | None
    warnings: tuple[str, ...] = ()
    base: str | None = None
    adapter: tuple[Any, AdapterRecord] | None = None
    quantized: str | None = None


def load_checkpoint(
    name: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | None = None,
    device_map: Any = None,
    attn_implementation: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    adapter: str | Path | None = None,
    quantize: str | None = None,
) -> Checkpoint:
    """Load an embedded model (``mini``), a checkpoint folder, a hub id or a GGUF file, every weight accounted for.

    ``adapter`` is a folder that PEFT wrote, ``quantize`` is ``4bit`` or ``8bit`` (bitsandbytes); a checkpoint that
    is quantised already (torchao, quanto, bitsandbytes) is loaded as it is.

    Raises:
        ModelError: unknown name (with near matches), broken folder, counts that the weights do not bear out,
            pickled weights, weights that are missing or of another shape, an adapter that did not arrive, a package
            that is not installed.
        UsageError: a dtype, device or device map that does not exist, a revision of something that is not on the hub,
            quantising what is quantised.
    """
    label = str(name)
    if device is not None:
        hold_device(device)
    if adapter is not None:
        read_config(adapter)  # a wrong folder is found before the model is loaded
    place, hub, config = _configuration(label, revision, trust_remote_code)
    options: dict[str, Any] = {"dtype": read_dtype(dtype), "use_safetensors": True, **hub}
    quantized = check_stored(config, label, quantize)
    if quantize is not None:
        options["quantization_config"] = quantization_config(quantize, options["dtype"])
        quantized = f"bitsandbytes {quantize}"
    if quantized is not None and device_map is None and device is not None:
        device_map = {"": device}  # codes are made on the device, and some kinds cannot be moved afterwards
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    kind, multimodal = auto_class(config)
    try:
        if device_map is not None:
            device_map = read_device_map(device_map)
            hold_places(device_map)
            if "" in device_map and len(device_map) > 1:
                with torch.device("meta"):
                    device_map = spread(device_map, kind.from_config(config, trust_remote_code=trust_remote_code))
            options |= {"device_map": device_map, **offload_options(device_map)}
        # shapes that differ are collected, and refused below in words that name them
        model, report = kind.from_pretrained(place, output_loading_info=True, ignore_mismatched_sizes=True, **options)
        processor = _owner(place, multimodal, hub)
    except _UNREADABLE as error:
        raise ModelError(f"model {label!r} cannot be loaded: {first_line(error)}") from error
    _all_arrived(label, report)
    if quantized is not None:
        fit_to_cpu(model)
    if label not in EMBEDDED:
        hold_template(processor, label)
    if device is not None and device_map is None:
        model.to(device)
    attached = None if adapter is None else attach(model, adapter)
    if attached is not None:
        model = attached[0].get_base_model()
    unexpected = sorted(report["unexpected_keys"])
    warnings = [f"{_some(unexpected)} of the checkpoint have no place in the model"] if unexpected else []
    return Checkpoint(
        model,
        processor,
        label if label in EMBEDDED else Path(label).name or label,
        revision or getattr(config, "_commit_hash", None),
        (*warnings, *dated(processor)),
        origin(place),
        attached,
        quantized,
    )


def _configuration(label: str, revision: str | None, trust_remote_code: bool) -> tuple[str, dict[str, Any], Any]:
    """Where a model lies, what every part of it is loaded with, and its configuration, held against its weights."""
    from transformers import AutoConfig

    place = source(label)
    hub: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if revision is not None:
        if place != label or Path(place).exists():
            raise UsageError(f"revision {revision!r} was given, and model {label!r} does not come from the hub")
        hub["revision"] = revision
    if Path(place).is_file():
        needs("gguf", "gguf", f"the GGUF file {Path(place).name!r}")
        hub["gguf_file"], place = Path(place).name, str(Path(place).parent)
    else:
        hold_against_weights(place, label, revision)
    try:
        return place, hub, AutoConfig.from_pretrained(place, **hub)
    except _UNREADABLE as error:
        if "custom code" in str(error) and not trust_remote_code:
            raise ModelError(
                f"model {label!r} brings Python code of its own, which would run on this machine; read it, and where "
                "you trust it write --trust-remote-code (trust_remote_code=True)"
            ) from error
        raise ModelError(f"model {label!r} cannot be read: {first_line(error)}") from error


def empty_checkpoint(
    name: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> tuple[Any, Any]:
    """The model's structure without weights (on PyTorch's meta device), and its processor or tokenizer.

    Raises :class:`ModelError` as :func:`load_checkpoint`, for what shows before weights are read.
    """
    label = str(name)
    place, hub, config = _configuration(label, revision, trust_remote_code)
    kind, multimodal = auto_class(config)
    try:
        with torch.device("meta"):
            model = kind.from_config(config, trust_remote_code=trust_remote_code)
        return model, _owner(place, multimodal, hub)
    except _UNREADABLE as error:
        raise ModelError(f"model {label!r} cannot be read: {first_line(error)}") from error


def source(name: str) -> str:
    """Where to load ``name`` from; raises with near matches when it can be nothing."""
    if name in EMBEDDED:
        return str(EMBEDDED[name]())
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return str(path)
    if path.is_file():
        raise ModelError(
            f"{name!r} is a file and no model; give the folder it lies in (with config.json), or a file that ends in "
            ".gguf"
        )
    if path.is_dir():
        if is_adapter(path):
            base = read_config(path).get("base_model_name_or_path")
            trained_on = f" (it was trained on {base!r})" if base else ""
            raise ModelError(
                f"folder {name!r} is a PEFT adapter ({CONFIG}) and no model; write --model BASE --adapter {name}"
                f"{trained_on}"
            )
        if not (path / "config.json").is_file():
            raise ModelError(f"folder {name!r} holds no config.json, so it is not a Hugging Face checkpoint")
        return str(path)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        if os.environ.get("HF_HUB_OFFLINE", "") in {"1", "true", "True", "YES", "ON"}:
            from huggingface_hub import try_to_load_from_cache

            if not isinstance(try_to_load_from_cache(name, "config.json"), str):
                raise ModelError(
                    f"model {name!r} is not in the local cache and HF_HUB_OFFLINE is set; download it first or "
                    "give a checkpoint folder"
                )
        return name
    siblings = [entry.name for entry in path.parent.iterdir() if entry.is_dir()] if path.parent.is_dir() else []
    raise ModelError(
        f"no model {name!r}: it is neither embedded ({', '.join(EMBEDDED)}) nor a folder nor a hub id "
        f"'owner/name'{near_matches(path.name, [*EMBEDDED, *siblings])}"
    )


def read_dtype(dtype: str | torch.dtype) -> str | torch.dtype:
    """A dtype under torch's name or its usual short one (``bf16``, ``fp16``, ``fp32``), or ``auto``."""
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    short = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}
    found = getattr(torch, short.get(dtype, dtype), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        known = ("auto", "float32", "bfloat16", "float16", *short)
        raise UsageError(f"dtype {dtype!r} is not known; write one of {', '.join(known)}{near_matches(dtype, known)}")
    return found


def auto_class(config: Any) -> tuple[Any, bool]:
    """The ``Auto`` class that loads a configuration, and whether it takes pictures.

    A configuration that brings its own code says itself under which of them it is to be loaded.
    """
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText

    own = getattr(config, "auto_map", None) or {}
    if type(config) in AutoModelForImageTextToText._model_mapping:
        return AutoModelForImageTextToText, True
    for kind, multimodal in ((AutoModelForImageTextToText, True), (AutoModelForCausalLM, False), (AutoModel, False)):
        if kind.__name__ in own:
            # remote code names its processor apart; whether it takes pictures shows when that is loaded
            return kind, multimodal or hasattr(config, "vision_config")
    return AutoModelForCausalLM, False


def _owner(place: str, multimodal: bool, hub: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    return load_processor(place, **hub) if multimodal else AutoTokenizer.from_pretrained(place, **hub)


def _all_arrived(label: str, report: dict[str, Any]) -> None:
    """Refuse a model of which a weight did not come from the checkpoint."""
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"model {label!r}: {_some(missing)} of the model are not in the checkpoint, so they would be drawn at "
            "random; the checkpoint is incomplete or belongs to another class"
        )
    other = sorted(report["mismatched_keys"])
    if other:
        _, there, here = other[0]
        raise ModelError(
            f"model {label!r}: {_some([key for key, _, _ in other])} have another shape in the checkpoint "
            f"({list(there)}) than in the configuration ({list(here)})"
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({shown})"


# -- small files first -----------------------------------------------------------------------------


def hold_against_weights(place: str, label: str, revision: str | None = None) -> None:
    """Refuse a configuration that counts more layers than the checkpoint has tensors.

    Building a model follows its configuration's counts before any weight is read.  The names come from the
    index or the header of the safetensors file.
    """
    raw = _read_json(place, "config.json", label, revision)
    if not isinstance(raw, dict):
        raise ModelError(f"model {label!r} cannot be read: its config.json holds no object")
    names = tensor_names(place, label, revision)
    if names is None:
        return
    for path, value in _counts(raw):
        if value > len(names):
            raise ModelError(
                f"model {label!r}: its config.json counts {value} at {path!r} and its checkpoint holds "
                f"{len(names)} tensors, so they do not belong together"
            )


def tensor_names(place: str, label: str, revision: str | None = None) -> set[str] | None:
    """Names of the tensors in a checkpoint's safetensors files, or ``None`` where it has none."""
    index = _file(place, "model.safetensors.index.json", revision)
    if index is not None:
        listed = _read_json(place, "model.safetensors.index.json", label, revision)
        weights = listed.get("weight_map") if isinstance(listed, dict) else None
        if not isinstance(weights, dict):
            raise ModelError(f"model {label!r} cannot be loaded: its index of weights holds no 'weight_map'")
        return set(weights)
    single = _file(place, "model.safetensors", revision)
    if single is not None:
        return _header_names(Path(single), label)
    pickled = [name for name in ("pytorch_model.bin", "pytorch_model.bin.index.json") if _file(place, name, revision)]
    if pickled:
        raise ModelError(
            f"model {label!r} cannot be loaded: its weights are a pickle ({pickled[0]}), which can run code when it is "
            "read; convert it to safetensors (model.save_pretrained of a trusted copy) or use a revision that has them"
        )
    return None


def _header_names(file: Path, label: str) -> set[str]:
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        text = stream.read(length) if 0 < length <= _LARGEST_HEADER else b""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ModelError(f"model {label!r} cannot be loaded: {file.name} is damaged (no header that can be read)")
    return set(header) - {"__metadata__"}


def _counts(value: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """Every count of layers in a configuration, with its dotted path."""
    todo = [(path, value)]
    while todo:
        where, found = todo.pop()
        if isinstance(found, dict):
            for key, inner in found.items():
                spot = f"{where}.{key}" if where else str(key)
                if isinstance(inner, int) and not isinstance(inner, bool) and key in _COUNTS:
                    yield spot, inner
                todo.append((spot, inner))


def _file(place: str, name: str, revision: str | None) -> str | None:
    from transformers.utils import cached_file

    if Path(place).is_dir():
        path = Path(place) / name
        return str(path) if path.is_file() else None
    try:
        return cached_file(place, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        if name != "config.json":
            return None  # transformers' own loading says what is wrong with the address
        raise ModelError(
            f"model {place!r} is not in the local cache and could not be had from the hub: {first_line(error)}; "
            "give a checkpoint folder, or an embedded model (mini)"
        ) from error


def _read_json(place: str, name: str, label: str, revision: str | None) -> Any:
    file = _file(place, name, revision)
    if file is None:
        raise ModelError(f"model {label!r} cannot be read: there is no {name}")
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"model {label!r} cannot be read: {name}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
