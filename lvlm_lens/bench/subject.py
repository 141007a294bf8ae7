"""What the capture benchmark runs on: a random model of LLaVA's shape, and requests with a picture each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..data import Sample
from ..data.images import ImageObject
from ..lens import LVLM
from ..models.tiny.parts import chat_template, drawn, make_tokenizer

_WORDS = "Can my toddler play with this while I take a nap, and what should I watch out for?"


@dataclass(frozen=True)
class Size:
    """Shape of the model and of one pass over the requests.

    ``image_side`` squared is the number of image tokens (24 x 24 = 576, as LLaVA-1.5 has).
    """

    width: int = 256
    blocks: int = 16
    image_side: int = 24
    rows: int = 8
    batch: int = 4

    @property
    def image_tokens(self) -> int:
        """Image tokens per picture."""
        return self.image_side**2

    def as_json(self) -> dict[str, int]:
        """The fields, and the number of image tokens."""
        return {**asdict(self), "image_tokens": self.image_tokens}


def build(size: Size) -> LVLM:
    """The model, float32 on the CPU, its own attention kernel; equal for equal sizes."""
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, SiglipVisionConfig
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    torch.manual_seed(0)
    tokenizer = make_tokenizer({"image_token": "<image>"})
    patch, heads = 14, max(1, size.width // 64)
    side = size.image_side * patch
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=size.width // 2,
            intermediate_size=size.width,
            num_hidden_layers=max(2, size.blocks // 4),
            num_attention_heads=heads,
            image_size=side,
            patch_size=patch,
            vision_use_head=False,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.width,
            intermediate_size=size.width * 11 // 4,
            num_hidden_layers=size.blocks,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=4096,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_seq_length=size.image_tokens,
    )
    processor = LlavaProcessor(
        SiglipImageProcessorPil(size={"height": side, "width": side}),
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="full",
        chat_template=chat_template(),
    )
    return LVLM(drawn(LlavaForConditionalGeneration(config), 0), processor, name="LLaVA-shaped, random")


def requests(size: Size, seed: int = 0) -> list[Sample]:
    """``size.rows`` requests with the same words, so that no row is padded, and a picture of its own each."""
    noise = np.random.default_rng(seed)
    side = size.image_side * 14
    found: list[Sample] = []
    for row in range(size.rows):
        pixels: Any = noise.integers(0, 255, (side, side, 3), dtype=np.uint8)
        found.append(Sample(id=f"r{row}", text=_WORDS, images=(ImageObject(Image.fromarray(pixels)),)))
    return found
