"""LLaVA and its relatives: a tower, a projector, a plain decoder; pictures as token runs."""

from __future__ import annotations

from typing import Any

from ..processors import StillVideoProcessor
from .parts import chat_template, drawn, make_tokenizer, sizes


def siglip(**more: Any) -> Any:
    """A SigLIP tower of 16 patches."""
    from transformers import SiglipVisionConfig

    options = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return SiglipVisionConfig(**{**options, "image_size": 32, "patch_size": 8, "vision_use_head": False, **more})


def llava(seed: int = 0) -> tuple[Any, Any]:
    """LLaVA-1.5's shape with a SigLIP tower: 16 image tokens per picture."""
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    tokenizer = make_tokenizer({"image_token": "<image>"})
    config = LlavaConfig(
        vision_config=siglip(),
        text_config=LlamaConfig(**sizes(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_seq_length=16,
    )
    processor = LlavaProcessor(
        SiglipImageProcessorPil(size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="full",
        chat_template=chat_template(),
    )
    return drawn(LlavaForConditionalGeneration(config), seed), processor


def _clip(**more: Any) -> Any:
    from transformers import CLIPVisionConfig

    options = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    return CLIPVisionConfig(**{**options, "image_size": 32, "patch_size": 8, "projection_dim": 32, **more})


def llava_next(seed: int = 0) -> tuple[Any, Any]:
    """LLaVA-1.6: a picture becomes tiles, rows of them ended by a learned newline."""
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor, MistralConfig
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    tokenizer = make_tokenizer({"image_token": "<image>"})
    grid = [[32, 64], [64, 32], [64, 64]]
    config = LlavaNextConfig(
        vision_config=_clip(),
        text_config=MistralConfig(**sizes(tokenizer), sliding_window=None),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
        image_seq_length=16,
    )
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=grid
    )
    processor = LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template(),
    )
    return drawn(LlavaNextForConditionalGeneration(config), seed), processor


def llava_onevision(seed: int = 0) -> tuple[Any, Any]:
    """LLaVA-OneVision: tiles of any aspect over a SigLIP tower and a Qwen2 decoder."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionProcessor,
        Qwen2Config,
    )
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    tokenizer = make_tokenizer({"image_token": "<image>", "video_token": "<video>"})
    grid = [[32, 32], [32, 64], [64, 32], [64, 64]]
    config = LlavaOnevisionConfig(
        vision_config=siglip(),
        text_config=Qwen2Config(**sizes(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
    )
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=grid),
        tokenizer,
        StillVideoProcessor(),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=chat_template(),
    )
    return drawn(LlavaOnevisionForConditionalGeneration(config), seed), processor


def vipllava(seed: int = 0) -> tuple[Any, Any]:
    """VipLLaVA: features of several tower blocks side by side."""
    from transformers import LlamaConfig, LlavaProcessor, VipLlavaConfig, VipLlavaForConditionalGeneration
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = make_tokenizer({"image_token": "<image>"})
    config = VipLlavaConfig(
        vision_config=_clip(),
        text_config=LlamaConfig(**sizes(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=[-2, -1],
        image_seq_length=16,
    )
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template(),
    )
    return drawn(VipLlavaForConditionalGeneration(config), seed), processor


def internvl(seed: int = 0) -> tuple[Any, Any]:
    """InternVL: tiles and a thumbnail, four patches folded into one token."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor, Qwen2Config
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    special = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = make_tokenizer(special)
    config = InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [32, 32],
            "patch_size": [8, 8],
        },
        text_config=Qwen2Config(**sizes(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    images = GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = InternVLProcessor(
        images,
        tokenizer,
        StillVideoProcessor(),
        image_seq_length=4,
        chat_template=chat_template("<IMG_CONTEXT>\\n"),
    )
    return drawn(InternVLForConditionalGeneration(config), seed), processor


def mistral3(seed: int = 0) -> tuple[Any, Any]:
    """Mistral 3: pictures at their own size, a break token after each row of patches."""
    from transformers import (
        Mistral3Config,
        Mistral3ForConditionalGeneration,
        MistralConfig,
        PixtralVisionConfig,
    )
    from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

    from .pictures import RowBreaks

    tokenizer = make_tokenizer({"image_token": "[IMG]"}, extra=("[IMG_BREAK]", "[IMG_END]"))
    config = Mistral3Config(
        vision_config=PixtralVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            head_dim=16,
            image_size=64,
            patch_size=8,
        ),
        text_config=MistralConfig(**sizes(tokenizer), sliding_window=None, head_dim=16),
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
    )
    processor = RowBreaks(
        PixtralImageProcessorPil(size={"longest_edge": 64}, patch_size={"height": 16, "width": 16}),
        tokenizer,
        patch_size=16,
        chat_template=chat_template("[IMG]"),
    )
    return drawn(Mistral3ForConditionalGeneration(config), seed), processor


def aya_vision(seed: int = 0) -> tuple[Any, Any]:
    """Aya Vision: tiles over a Cohere2 decoder, whose attention and MLP read the same residual."""
    from transformers import AyaVisionConfig, AyaVisionForConditionalGeneration, AyaVisionProcessor, Cohere2Config
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    names = ["<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE_GLOBAL"]
    tokenizer = make_tokenizer({"image_token": "<image>"}, extra=(*names, *(f"TILE_{i}" for i in range(1, 10))))
    config = AyaVisionConfig(
        vision_config=siglip(),
        text_config=Cohere2Config(**sizes(tokenizer), sliding_window=16, logit_scale=0.25),
        image_token_index=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"),
        downsample_factor=2,
        tie_word_embeddings=True,
    )
    images = GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = AyaVisionProcessor(
        images, tokenizer, patch_size=8, img_size=32, downsample_factor=2, chat_template=chat_template()
    )
    return drawn(AyaVisionForConditionalGeneration(config), seed), processor


def janus(seed: int = 0) -> tuple[Any, Any]:
    """Janus: an aligner after the tower; its picture-making half is there and unused."""
    from transformers import JanusConfig, JanusForConditionalGeneration, JanusProcessor, LlamaConfig
    from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

    special = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = make_tokenizer(special)
    config = JanusConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "projection_dim": 64,
            "num_image_tokens": 16,
        },
        text_config=LlamaConfig(**sizes(tokenizer)),
        vq_config={
            "embed_dim": 8,
            "num_embeddings": 32,
            "latent_channels": 32,
            "base_channels": 32,
            "channel_multiplier": [1, 1],
            "num_res_blocks": 1,
            "projection_dim": 64,
            "image_token_embed_dim": 64,
            "num_patches": 4,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image_placeholder>"),
        tie_word_embeddings=False,
    )
    processor = JanusImageProcessorPil(size={"height": 32, "width": 32})
    return drawn(JanusForConditionalGeneration(config), seed), JanusProcessor(
        processor, tokenizer, chat_template=chat_template("<image_placeholder>\\n"), num_image_tokens=16
    )
