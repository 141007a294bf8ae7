"""Prompts with drawn pictures, matched pairs of them, and one tiny model: what several test files build from."""

from __future__ import annotations

import functools

import numpy as np
import torch
from PIL import Image

from lvlm_lens import LVLM
from lvlm_lens.data import ImageObject, Pair, Sample
from lvlm_lens.models.tiny import tiny_model

TEXTS = ("Can my toddler play with this?", "hello there", "may I take it on a plane, please?")


def picture(seed: int, size: tuple[int, int] = (40, 40)) -> ImageObject:
    """Noise, uniform over all colours; ``size`` is (width, height) in pixels."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return ImageObject(Image.fromarray(pixels))


@functools.lru_cache(1)
def tiny() -> LVLM:
    return LVLM(*tiny_model("llava"))


def make_pairs(count: int) -> list[Pair]:
    """Pairs that differ in their picture alone."""
    return [
        Pair(
            Sample(f"c{i}", TEXTS[i % 3], (picture(i),), group=f"g{i}"),
            Sample(f"r{i}", TEXTS[i % 3], (picture(100 + i),), group=f"g{i}"),
        )
        for i in range(count)
    ]


def token_difference(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 5] - logits[:, 9]
