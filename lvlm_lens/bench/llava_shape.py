"""A model of LLaVA's shape and of any size, built from its configuration: what the patch benchmark runs on.

336-pixel pictures in 14-pixel patches give 576 image tokens, as in LLaVA-1.5; depth, width and vocabulary are
arguments, so that a laptop and a GPU run the same benchmark.  Weights are random: time does not depend on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from ..data import ImageObject, Pair, Sample
from ..lens import LVLM
from ..models.tiny.parts import chat_template, make_tokenizer

QUESTION = "Can my toddler play with this on the plane, and is it safe to take it there? Please tell me how."


def llava_shape(blocks: int = 16, width: int = 256, image_tokens: int = 576, seed: int = 0) -> LVLM:
    """An :class:`LVLM` with ``image_tokens`` (a square number) a picture; float32 on the CPU."""
    from transformers import (
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        SiglipVisionConfig,
    )
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    side = 14 * round(image_tokens**0.5)
    tokenizer = make_tokenizer({"image_token": "<image>"})
    vision = SiglipVisionConfig(
        hidden_size=width // 2,
        intermediate_size=width,
        num_hidden_layers=max(2, blocks // 4),
        num_attention_heads=max(1, width // 128),
        image_size=side,
        patch_size=14,
        vision_use_head=False,
    )
    text = LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 43 // 16,  # as in Llama: 11008 for 4096
        num_hidden_layers=blocks,
        num_attention_heads=max(1, width // 64),
        num_key_value_heads=max(1, width // 64),
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        max_position_embeddings=4096,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_seq_length=image_tokens,
    )
    processor = LlavaProcessor(
        SiglipImageProcessorPil(size={"height": side, "width": side}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="full",
        chat_template=chat_template(),
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        model: Any = LlavaForConditionalGeneration(config)
        with torch.no_grad():  # the initialiser's 0.02 leaves pictures almost without effect
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
    finally:
        torch.random.set_rng_state(state)
    model.config.architectures = ["LlavaForConditionalGeneration"]
    return LVLM(model, processor, name=f"llava-shape-{blocks}x{width}")


def image_pair(number: int = 0) -> Pair:
    """A pair that differs in its picture (random pixels), with one question."""
    rng = np.random.default_rng(number)

    def picture() -> ImageObject:
        return ImageObject(Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)))

    return Pair(
        Sample(f"clean-{number}", QUESTION, (picture(),), group=f"pair-{number}"),
        Sample(f"corrupted-{number}", QUESTION, (picture(),), group=f"pair-{number}"),
    )
