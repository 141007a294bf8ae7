"""What the full published setting would cost, before anybody buys it.

LLaVA-1.5-7B is built from its configuration without weights (PyTorch's meta device): its parameters and image
tokens are counted, not remembered.  FLOPs are ``2 x parameters x tokens`` of the decoder and of the vision tower;
attention's quadratic part is left out (a few per cent at these lengths).  Prompt lengths and the longest answer are
assumptions, and stand in the result.  Decoding one token at a time is bound by memory, so hours are a lower bound
where answers are long and batches small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from ..data.registry import card

TEXT_TOKENS = 96
"""Assumed tokens of template, system words and question."""
ANSWER_TOKENS = 128
"""Assumed length of an answer."""
REFERENCE = "LLaVA-1.5-7B"


@dataclass(frozen=True)
class Shape:
    """A model's size: blocks, width, vocabulary, tokens of a picture, parameters of decoder and tower."""

    blocks: int
    width: int
    vocabulary: int
    image_tokens: int
    vision_tokens: int
    decoder: int
    vision: int


@dataclass(frozen=True)
class Pass:
    """One kind of forward: ``items x times`` prompts, each followed by ``new_tokens`` decoding steps.

    ``share`` is the share of the decoder a prompt runs through; ``kept`` bytes stay on disk an item.
    """

    what: str
    items: int
    times: float = 1.0
    new_tokens: int = 0
    picture: bool = True
    text_tokens: int = TEXT_TOKENS
    share: float = 1.0
    kept: int = 0


@cache
def reference_shape() -> Shape:
    """LLaVA-1.5-7B as its configuration class describes it."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig()
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    vision = sum(parameter.numel() for parameter in model.model.vision_tower.parameters())
    side = config.vision_config.image_size // config.vision_config.patch_size
    return Shape(
        blocks=config.text_config.num_hidden_layers,
        width=config.text_config.hidden_size,
        vocabulary=config.text_config.vocab_size,
        image_tokens=side * side,
        vision_tokens=side * side + 1,
        decoder=total - vision,
        vision=vision,
    )


def published_items(name: str, key: str = "samples") -> int:
    """The published number of records of a registered set."""
    return int(card(name).counts[key])


def cost_of(name: str, passes: Callable[[Shape], Sequence[Pass]], tflops: float) -> dict[str, Any]:
    """Forwards, tokens, FLOPs, hours and bytes of a recipe's published setting, as plain values."""
    shape = reference_shape()
    rows: list[dict[str, Any]] = []
    for one in passes(shape):
        prompts = round(one.items * one.times)
        length = one.text_tokens + (shape.image_tokens if one.picture else 0)
        flops = 2.0 * prompts * (one.share * shape.decoder * length + shape.decoder * one.new_tokens)
        flops += 2.0 * shape.vision * shape.vision_tokens * prompts * one.picture * (one.share == 1.0)
        rows.append(
            {
                "what": one.what,
                "prompts": prompts,
                "prompt_tokens": length,
                "decoding_steps": prompts * one.new_tokens,
                "flops": flops,
                "bytes": one.items * one.kept,
            }
        )
    flops = sum(row["flops"] for row in rows)
    return {
        "recipe": name,
        "model": REFERENCE,
        "parameters": shape.decoder + shape.vision,
        "passes": rows,
        "forwards": sum(row["prompts"] for row in rows),
        "decoding_steps": sum(row["decoding_steps"] for row in rows),
        "flops": flops,
        "tflops_assumed": tflops,
        "hours": flops / (tflops * 1e12) / 3600,
        "disk_bytes": sum(row["bytes"] for row in rows),
        "weight_bytes": 2 * (shape.decoder + shape.vision),
        "assumed": f"{TEXT_TOKENS} text tokens per prompt unless a pass differs, answers of {ANSWER_TOKENS} tokens",
    }
