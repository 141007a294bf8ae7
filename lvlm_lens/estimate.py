"""What a sweep would cost, before anything is spent.

The model is built without weights (on PyTorch's meta device) for its size; a few samples are
encoded for the number of tokens; a small matrix product on the device gives its speed.  FLOPs are
``2 x parameters of the blocks x tokens`` (attention's quadratic part is left out: it is small at
these lengths), so the time is an estimate, meant to be right within a factor of two or three.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from .config import SweepConfig, parse_blocks
from .data.registry import load_dataset
from .errors import ModelError
from .models.anatomy import Anatomy, resolve
from .models.loading import hold_against_weights, source
from .models.lvlm import LVLM
from .stages.inputs import best_device, limited
from .stages.measuring import parse_measures, rows_forward

_TRIED = 8


def empty_model(name: str, revision: str | None = None) -> tuple[Any, Any]:
    """The model's structure without weights, and its processor or tokenizer."""
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
    )

    place = source(name)
    hold_against_weights(place, name, revision)
    try:
        config = AutoConfig.from_pretrained(place, revision=revision)
        multimodal = type(config) in AutoModelForImageTextToText._model_mapping
        with torch.device("meta"):
            kind = AutoModelForImageTextToText if multimodal else AutoModelForCausalLM
            model = kind.from_config(config)
        owner = (AutoProcessor if multimodal else AutoTokenizer).from_pretrained(place, revision=revision)
    except (OSError, ValueError) as error:
        raise ModelError(f"model {name!r} cannot be read: {error}") from error
    return model, owner


def device_flops(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a 1024-wide matrix product on the device."""
    size = 1024
    a = torch.randn(size, size, device=device).to(dtype)
    for timed in (False, True):
        start = time.perf_counter()
        for _ in range(4):
            _ = a @ a
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        if timed:
            return 4 * 2 * size**3 / (time.perf_counter() - start)
    raise AssertionError("unreachable")


def estimate_sweep(config: SweepConfig) -> dict[str, Any]:
    """Forwards, tokens, FLOPs, bytes and seconds of a sweep, as plain values."""
    data = limited(
        load_dataset(config.dataset, config.root, config.split, config.subset, **dict(config.columns)),  # type: ignore[arg-type]
        config.limit,
        config.seed,
    )
    model, owner = empty_model(config.model, config.revision)
    anatomy: Anatomy = resolve(model)
    tried = [data[round(i)] for i in torch.linspace(0, len(data) - 1, min(_TRIED, len(data))).tolist()]
    takes_images = hasattr(owner, "image_processor")
    shown = [sample if takes_images else sample.without_images() for sample in tried]
    encoder = LVLM(model, owner).encoder
    tokens = sum(len(encoder([sample]).layouts[0].attended) for sample in shown) / len(shown)
    blocks = parse_blocks(config.blocks, anatomy.n_blocks)
    kept = anatomy.n_blocks if blocks is None else len(blocks)
    passes = 1 + int(config.twin) + (1 if takes_images and any(s.text_only and s.images for s in tried) else 0)
    weights = sum(p.numel() for block in anatomy.blocks for p in block.parameters())
    vision = sum(p.numel() for p in anatomy.vision.parameters()) if anatomy.vision is not None and takes_images else 0
    device = config.device or best_device()
    dtype = model.dtype if config.dtype == "auto" else getattr(torch, config.dtype)
    rows = passes * len(data) + rows_forward(
        parse_measures(config.measures), len(data), anatomy.n_blocks, anatomy.n_heads
    )
    flops = 2.0 * (weights + vision) * tokens * rows
    speed = device_flops(device, dtype)
    return {
        "model": config.model,
        "parameters": sum(p.numel() for p in model.parameters()),
        "dataset": config.dataset,
        "samples": len(data),
        "tokens_a_sample": round(tokens, 1),
        "passes": passes,
        "forwards": -(-rows // config.batch_size),
        "flops": flops,
        "bytes_on_disk": passes * len(data) * kept * (anatomy.d_model * 4 + 12),
        "device": device,
        "device_flops_a_second": round(speed),
        "seconds": round(flops / (0.35 * speed) + 20, 1),
    }
