"""A model's weights wherever they are: on the device, waiting on the CPU or on disk, or packed by a quantiser.

accelerate keeps the weights of an offloaded module in a map beside it and leaves empty ``meta`` parameters in their
place; a module loads its own when it runs.  Quantisers (bitsandbytes, torchao, quanto) keep codes and scales, as
extra entries of the state dict or inside tensor subclasses.  Everything that asks for values, not shapes, asks here.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ..errors import ModelError

FULL_HASH_BYTES = 256 * 2**20
"""Models up to this size are hashed whole."""


def offload_hooks(model: nn.Module) -> dict[str, Any]:
    """accelerate's hooks that hold offloaded weights, by the dotted name of their module."""
    found = {}
    for name, module in model.named_modules():
        hook = getattr(module, "_hf_hook", None)
        for one in getattr(hook, "hooks", (hook,)):
            if getattr(one, "offload", False) and getattr(one, "weights_map", None) is not None:
                found[name] = one
    return found


def offloaded(model: nn.Module) -> bool:
    """Whether some weights wait elsewhere and are loaded when their module runs."""
    return any(parameter.is_meta for parameter in model.parameters()) and bool(offload_hooks(model))


def quantization(model: nn.Module) -> str | None:
    """The quantiser whose codes stand in place of weights (``bitsandbytes``, ``torchao`` ...), or ``None``."""
    config = getattr(getattr(model, "config", None), "quantization_config", None)
    method = config.get("quant_method") if isinstance(config, Mapping) else getattr(config, "quant_method", None)
    if method is not None:
        return str(getattr(method, "value", method))
    for parameter in model.parameters():
        kind = type(parameter.data)
        if hasattr(parameter, "__tensor_flatten__"):  # a tensor made of other tensors
            return next((known for known in ("torchao", "quanto") if known in kind.__module__), kind.__name__)
        if not parameter.is_floating_point():
            return type(parameter).__module__.split(".")[0]
    return None


def real_weight(model: nn.Module, name: str, tensor: torch.Tensor, hooks: Mapping[str, Any]) -> torch.Tensor:
    """The value behind an entry of the state dict; raises :class:`ModelError` for one that is nowhere."""
    if not tensor.is_meta:
        return tensor
    owner = name
    while owner:
        owner = owner.rpartition(".")[0]
        if owner in hooks:
            return hooks[owner].weights_map[name[len(owner) + 1 :] if owner else name]
    raise ModelError(f"weight {name!r} is on no device and no file is known for it, so the model cannot be read")


def parts(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The plain tensors of a tensor: itself, or codes and scales of a quantised one."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield name, tensor
        return
    inner, settings = tensor.__tensor_flatten__()
    yield f"{name}:{type(tensor).__name__}:{settings}", torch.empty(0)
    for key in inner:
        yield from parts(f"{name}.{key}", getattr(tensor, key))


def stored_weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and values of everything that the model stores, one at a time, sorted by name.

    Offloaded values are read from where they wait, quantised ones come as their codes and scales; entries of the
    state dict that are no tensors come as a tensor of their text's bytes.
    """
    hooks = offload_hooks(model)
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, torch.Tensor):
            yield from parts(name, real_weight(model, name, value, hooks).detach())
        else:
            yield name, torch.frombuffer(bytearray(repr(value).encode()), dtype=torch.uint8)


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over names, shapes, dtypes and values of all weights.

    Models over 256 MiB are hashed at 4,096 evenly spaced values of each tensor, and the result then begins with
    ``sampled-``.
    """
    size = sum(v.numel() * v.element_size() for v in model.state_dict().values() if isinstance(v, torch.Tensor))
    digest = hashlib.sha256()
    for key, tensor in stored_weights(model):
        digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
        flat = tensor.reshape(-1)
        if size > FULL_HASH_BYTES and flat.numel() > 4096:
            # whole numbers: in float32 the last index of more than 2^24 values rounds up to their number
            flat = flat[torch.arange(4096, device=flat.device) * (flat.numel() - 1) // 4095]
        digest.update(_bytes(flat))
    return ("sampled-" if size > FULL_HASH_BYTES else "") + digest.hexdigest()


def full_hash(model: nn.Module) -> str:
    """A 128-bit hash of every byte of every weight (XXH3), whatever the size: equal means bit-identical."""
    import xxhash

    digest = xxhash.xxh3_128()
    for key, tensor in stored_weights(model):
        digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
        for piece in tensor.reshape(-1).split(2**24):
            digest.update(_bytes(piece))
    return digest.hexdigest()


def _bytes(flat: torch.Tensor) -> memoryview:
    return flat.cpu().contiguous().view(torch.uint8).numpy().data


def standalone(model: nn.Module, module: nn.Module) -> nn.Module:
    """A copy of one small module with its values as they are now, free of what loads and frees offloaded ones."""
    from accelerate.hooks import remove_hook_from_module

    name = next(name for name, own in model.named_modules() if own is module)
    hooks = offload_hooks(model)
    hook = getattr(module, "_hf_hook", None)
    # the hook's map may hold the whole model's weights: the copy shares it, and loses it in the next line
    copied = remove_hook_from_module(copy.deepcopy(module, {id(hook): hook}), recurse=True)
    where = execution_device(module, next(module.parameters()))
    for key, value in module.named_parameters():
        owner, _, last = key.rpartition(".")
        real = real_weight(model, f"{name}.{key}", value, hooks).detach().clone().to(where)
        setattr(copied.get_submodule(owner), last, nn.Parameter(real, requires_grad=False))
    return copied


def execution_device(module: nn.Module, weight: torch.Tensor) -> torch.device:
    """Where a module runs: its weight's device, or the one that an offloaded weight is loaded onto."""
    if not weight.is_meta:
        return weight.device
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", (hook,)):
        where = getattr(one, "execution_device", None)
        if where is not None:
            return torch.device("cuda", where) if isinstance(where, int) else torch.device(where)
    return weight.device
