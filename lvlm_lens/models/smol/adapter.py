"""A low-rank adapter in PEFT's format, added to the weights it was trained for.

LoRA (Hu et al. 2021, arXiv 2106.09685): ``W + alpha / r * B @ A``.  Written out here so that loading the shipped
adapters needs no further package; a user's own adapters go through PEFT.
"""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from ...errors import ModelError

_PREFIX = "base_model.model."


def merge_adapter(weights: MutableMapping[str, torch.Tensor], folder: Path) -> int:
    """Replace every weight the adapter in ``folder`` names by its sum with the adapter; returns how many.

    Args:
        weights: float32 tensors by the names of the model that the adapter was trained on.
        folder: ``adapter_config.json`` and ``adapter_model.safetensors``: ``A [r, in]`` and ``B [out, r]``, any dtype.

    Raises:
        ModelError: a key of the adapter that cannot be placed, a shape that does not fit, or another kind of adapter.
    """
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    others = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out")
    unknown = [name for name in others if config.get(name)]
    if config.get("peft_type") != "LORA" or unknown:
        raise ModelError(f"adapter {folder} is not a plain LoRA: {config.get('peft_type')} {', '.join(unknown)}")
    scale = config["lora_alpha"] / config["r"]
    parts = load_file(folder / "adapter_model.safetensors")
    merged = 0
    for key in sorted(parts):
        if not key.endswith(".lora_A.weight"):
            continue
        b = parts.get(key.replace(".lora_A.", ".lora_B."))
        name = key.removeprefix(_PREFIX).replace(".lora_A.weight", ".weight")
        a = parts[key]
        if name not in weights or b is None or weights[name].shape != (b.shape[0], a.shape[1]):
            raise ModelError(f"adapter {folder}: {key} does not fit the model (no weight {name} of its shape)")
        weights[name] = weights[name] + scale * (b.float() @ a.float())
        merged += 1
    if not merged or len(parts) != 2 * merged:
        raise ModelError(f"adapter {folder}: {len(parts)} tensors, of which {2 * merged} are pairs A and B")
    return merged
