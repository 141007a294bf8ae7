"""Where the parts of a model go: accelerate's device maps (a word, or JSON), and a folder for what goes to disk."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import UsageError, near_matches
from .weights import quantization

WORDS = ("auto", "balanced", "balanced_low_0", "sequential")


def read_device_map(value: Any) -> Any:
    """A device map: one of accelerate's words, a device for everything, or JSON ``{"module": "device"}``.

    Devices are ``cpu``, ``disk``, ``cuda``, ``cuda:1`` or numbers.  Raises :class:`UsageError` otherwise.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text in WORDS:
        return text
    if not text.startswith("{"):
        if text == "disk":
            raise UsageError(
                'device map "disk" leaves no part on a device; write JSON that names what goes to disk, e.g. '
                '{"": "cpu", "model.language_model.layers": "disk"}'
            )
        _known(text)
        return {"": text}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"device map {text[:60]!r} is no JSON: {error}") from error
    if not all(isinstance(place, (str, int)) for place in found.values()):
        raise UsageError(f'device map {text[:60]!r} must hold {{"module": "device"}}')
    for place in found.values():
        _known(place)
    return found


def _known(place: str | int) -> None:
    """Raise :class:`UsageError` for a place of a device map that no machine has."""
    if isinstance(place, str) and place != "disk":
        try:
            torch.device(place)
        except RuntimeError:
            raise UsageError(
                f"device map: {place[:60]!r} is no device; write {', '.join(WORDS)}, cpu, cuda, cuda:1 ..., or JSON "
                f'such as {{"": 0, "lm_head": "disk"}}{near_matches(place, WORDS)}'
            ) from None


def hold_places(device_map: Any) -> None:
    """Raise :class:`UsageError` where a map from :func:`read_device_map` names a device that is not there."""
    for place in () if isinstance(device_map, str) else device_map.values():
        if place != "disk":
            hold_device(f"cuda:{place}" if isinstance(place, int) else place)


def hold_device(device: str | torch.device) -> None:
    """Raise :class:`UsageError` for a device that PyTorch does not know, or that this machine does not have."""
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UsageError(f"device {str(device)!r} is not known; write cpu, cuda, cuda:1 ... or mps") from None
    there = {"cpu": 1, "meta": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    count = there.get(found.type)
    if count == 0:
        raise UsageError(f"device {str(device)!r}: PyTorch finds no such device on this machine; write --device cpu")
    if count is not None and (found.index or 0) >= count:
        raise UsageError(f"device {str(device)!r}: PyTorch finds {count} of its kind on this machine, counted from 0")


def spread(device_map: Any, model: nn.Module) -> Any:
    """A map whose ``""`` means "everything else", as accelerate wants it: one entry a module that is not divided.

    ``model`` may be empty (on PyTorch's ``meta`` device).
    """
    if isinstance(device_map, str) or "" not in device_map or len(device_map) == 1:
        return device_map
    named = {name: place for name, place in device_map.items() if name}
    found: dict[str, Any] = {}

    def walk(path: str, module: nn.Module) -> None:
        if path in named:
            found[path] = named[path]
        elif any(name.startswith(f"{path}." if path else "") for name in named):
            for name, child in module.named_children():
                walk(f"{path}.{name}" if path else name, child)
            for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                found[f"{path}.{name}" if path else name] = device_map[""]
        else:
            found[path] = device_map[""]

    walk("", model)
    lost = sorted(set(named) - set(found))
    if lost:
        raise UsageError(f"device map names {lost[0]!r}, which is no module of {type(model).__name__}")
    return found


def offload_options(device_map: Any) -> dict[str, Any]:
    """Options of transformers for a map that may put parts on disk: a folder that is gone when the program ends.

    Weights that lie in the checkpoint as they are needed are read from there, and nothing is written.
    """
    if not isinstance(device_map, str) and "disk" not in device_map.values():
        return {}
    folder = tempfile.mkdtemp(prefix="lvlm-lens-offload-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {"offload_folder": folder}


@contextmanager
def off_its_device(model: nn.Module) -> Iterator[None]:
    """Inside, a model's weights wait in main memory, and another model has its device for itself.

    Nothing is moved where they wait there already, where they are spread over several places (a device map), or where
    they are a quantiser's codes, whose kernels lay them out for their device.
    """
    places = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    place = places.pop()
    if places or place.type in ("cpu", "meta") or quantization(model) is not None:
        yield
        return
    model.to("cpu")
    if place.type == "cuda":
        torch.cuda.empty_cache()
    try:
        yield
    finally:
        model.to(place)
