"""Six well-known models, built from configuration: true widths, heads, vocabulary, tower; two blocks of each.

Sizes are those of the published ``config.json`` of the hub id that each row names; ``source`` says where they were
read, since not every file itself could be opened.  Weights are random, the tokenizer is a small one trained in place
(the model's vocabulary is larger, as it is in every padded checkpoint), and the picture processor is the family's own
at its published sizes unless ``pictures`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..lens import LVLM
from ..models.processors import StillVideoProcessor
from ..models.tiny.parts import chat_template, make_tokenizer

BLOCKS = 2
"""Blocks of the decoder and of the tower that are built."""

_SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "patch_size": 14}
_QWEN2_7B = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4}
_QWEN2_ROPE = {"rope_type": "default", "rope_theta": 1e6}
_VIDEO = {"video_token": "<video>"}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


@dataclass(frozen=True)
class Shape:
    """One model of the battery.

    Attributes:
        hub: whose published configuration its sizes are.
        depth, tower_depth: blocks of the published decoder and tower.
        build: configuration, model class and processor.
        source: where the sizes were read.
        decoder: dotted path of the decoder in transformers' model, written by hand, for plain forwards.
        pictures: what is not as published about the pictures.
    """

    hub: str
    depth: int
    tower_depth: int
    build: Callable[[], tuple[Any, Any, Any]]
    source: str
    decoder: str = "model.language_model"
    pictures: str = "as published"


def _text(tokenizer: Any, **sizes: Any) -> dict[str, Any]:
    return {
        "num_hidden_layers": BLOCKS,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **sizes,
    }


def _llava() -> tuple[Any, Any, Any]:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = make_tokenizer({"image_token": "<image>"})
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=BLOCKS, num_attention_heads=16, image_size=336,
        patch_size=14, projection_dim=768,
    )  # fmt: skip
    text = LlamaConfig(
        **_text(tokenizer, vocab_size=32064, hidden_size=4096, intermediate_size=11008, num_attention_heads=32),
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=tokenizer.convert_tokens_to_ids("<image>")
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    processor = LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=chat_template(),
    )  # fmt: skip
    return LlavaForConditionalGeneration, config, processor


def _onevision() -> tuple[Any, Any, Any]:
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionProcessor,
        Qwen2Config,
        SiglipVisionConfig,
    )
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    tokenizer = make_tokenizer({"image_token": "<image>", **_VIDEO})
    vision = SiglipVisionConfig(**_SIGLIP, num_hidden_layers=BLOCKS, image_size=384, vision_use_head=False)
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=Qwen2Config(
            **_text(tokenizer, vocab_size=152128, **_QWEN2_7B),
            max_position_embeddings=32768,
            rope_parameters=_QWEN2_ROPE,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
    )
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessorPil(), tokenizer, StillVideoProcessor(), num_image_tokens=729,
        vision_feature_select_strategy="full", chat_template=chat_template(),
    )  # fmt: skip
    return LlavaOnevisionForConditionalGeneration, config, processor


def _qwen2_5_vl() -> tuple[Any, Any, Any]:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    special = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    }
    tokenizer = make_tokenizer(special)
    rope = {**_QWEN2_ROPE, "mrope_section": [16, 24, 24]}
    config = Qwen2_5_VLConfig(
        text_config=_text(tokenizer, vocab_size=152064, **_QWEN2_7B, rope_parameters=rope, rms_norm_eps=1e-6),
        vision_config={
            "depth": BLOCKS, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
            "window_size": 112, "out_hidden_size": 3584, "fullatt_block_indexes": [1],
        },
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in special.items()},
    )  # fmt: skip
    images = Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, min_pixels=56 * 56, max_pixels=28 * 28 * 16384)
    template = chat_template("<|vision_start|><|image_pad|><|vision_end|>", trim=False)
    processor = Qwen2_5_VLProcessor(images, tokenizer, StillVideoProcessor(), chat_template=template)
    return Qwen2_5_VLForConditionalGeneration, config, processor


def _gemma3() -> tuple[Any, Any, Any]:
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3Processor,
        Gemma3TextConfig,
        SiglipVisionConfig,
    )
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    special = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    tokenizer = make_tokenizer(special)
    text = Gemma3TextConfig(
        **_text(
            tokenizer, vocab_size=262208, hidden_size=2560, intermediate_size=10240, num_attention_heads=8,
            num_key_value_heads=4, head_dim=256, sliding_window=1024,
        ),
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    )  # fmt: skip
    config = Gemma3Config(
        text_config=text,
        vision_config=SiglipVisionConfig(
            **_SIGLIP, num_hidden_layers=BLOCKS, image_size=896, vision_use_head=False
        ),
        mm_tokens_per_image=256,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
    )  # fmt: skip
    images = Gemma3ImageProcessorPil(size={"height": 896, "width": 896})
    processor = Gemma3Processor(
        images, tokenizer, chat_template=chat_template("<start_of_image>"), image_seq_length=256
    )
    return Gemma3ForConditionalGeneration, config, processor


def _internvl3() -> tuple[Any, Any, Any]:
    from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor, Qwen2Config
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    special = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", **_VIDEO,
    }  # fmt: skip
    tokenizer = make_tokenizer(special)
    config = InternVLConfig(
        vision_config={
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": BLOCKS, "num_attention_heads": 16,
            "attention_bias": True, "image_size": [448, 448], "patch_size": [14, 14],
        },
        text_config=Qwen2Config(
            **_text(tokenizer, vocab_size=151674, **_QWEN2_7B),
            max_position_embeddings=32768,
            rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e6},
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=256,
        tie_word_embeddings=False,
    )  # fmt: skip
    images = GotOcr2ImageProcessorPil(
        size={"height": 448, "width": 448}, crop_to_patches=True, min_patches=1, max_patches=12, **_IMAGENET
    )
    processor = InternVLProcessor(
        images, tokenizer, StillVideoProcessor(), image_seq_length=256, chat_template=chat_template("<IMG_CONTEXT>\\n")
    )
    return InternVLForConditionalGeneration, config, processor


def _smolvlm() -> tuple[Any, Any, Any]:
    from transformers import LlamaConfig, SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMProcessor
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    special = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tokenizer = make_tokenizer(special, extra=tuple(f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)))
    config = SmolVLMConfig(
        vision_config={**_SIGLIP, "num_hidden_layers": BLOCKS, "image_size": 384},
        text_config=LlamaConfig(
            **_text(tokenizer, vocab_size=49280, hidden_size=2048, intermediate_size=8192, num_attention_heads=32),
            max_position_embeddings=8192,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 273768.0},
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=3,
    )
    images = SmolVLMImageProcessorPil(size={"longest_edge": 768}, max_image_size={"longest_edge": 384})
    processor = SmolVLMProcessor(
        images, tokenizer, StillVideoProcessor(), image_seq_len=81, chat_template=chat_template()
    )
    return SmolVLMForConditionalGeneration, config, processor


_CONVERTED = "transformers' conversion script"
SHAPES: dict[str, Shape] = {
    "LLaVA-1.5-7B": Shape(
        "llava-hf/llava-1.5-7b-hf", 32, 24, _llava,
        f"{_CONVERTED} (Vicuna-7B, 32,000 tokens and two more, padded to a multiple of 64; CLIP ViT-L/14 at 336)",
    ),
    "LLaVA-OneVision-7B": Shape(
        "llava-hf/llava-onevision-qwen2-7b-ov-hf", 28, 26, _onevision,
        f"{_CONVERTED} (Qwen2-7B-Instruct, 152,064 tokens and two more, padded to a multiple of 64; tower written out) "
        "and Qwen2-7B's published configuration",
    ),
    "Qwen2.5-VL-7B": Shape(
        "Qwen/Qwen2.5-VL-7B-Instruct", 28, 32, _qwen2_5_vl,
        "the printed module tree of the checkpoint; rotary sections and base, norm and window in a configuration "
        "of the 7B that musubi-tuner quotes whole (its qwen_image_utils.py)",
    ),
    "Gemma-3-4B": Shape(
        "google/gemma-3-4b-it", 34, 27, _gemma3,
        f"{_CONVERTED} (variant gemma3_4b, 262,144 tokens and 64 rows for the image token)",
    ),
    "InternVL3-8B": Shape(
        "OpenGVLab/InternVL3-8B-hf", 28, 24, _internvl3,
        f"{_CONVERTED}; vocabulary, rotary scaling and tower as in quoted configurations of InternVL3; widths of "
        "Qwen2.5-7B",
    ),
    "SmolVLM-2.2B": Shape(
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct", 24, 27, _smolvlm,
        "quoted configuration of SmolVLM-Instruct (same decoder and tower); the vocabulary that of other SmolVLM2; the "
        "2.2B file itself was not seen, so its rotary base may be another",
        "model.text_model",
        "longest edge 768, so five tiles in place of up to seventeen",
    ),
}  # fmt: skip
"""Models of the battery by name."""


def build(name: str, dtype: torch.dtype, device: str = "cpu", seed: int = 0) -> LVLM:
    """The model, in its dtype from the start: no second copy in float32 ever exists."""
    from transformers.initialization import no_init_weights

    kind, config, processor = SHAPES[name].build()
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device), no_init_weights(), torch.random.fork_rng():
            torch.manual_seed(seed)
            model = kind(config)
            model.tie_weights()
            _draw(model)
    finally:
        torch.set_default_dtype(before)
    return LVLM(model, processor, name=f"wide {name}")


@torch.no_grad()
def _draw(model: nn.Module) -> None:
    """Matrices with the spread ``1 / sqrt(fan_in)``; vectors with noise around where their constructor puts them.

    What :func:`~lvlm_lens.models.tiny.parts.drawn` does, in place and in the model's own dtype.
    """
    for module in model.modules():  # what no_init_weights leaves unset
        if isinstance(module, nn.LayerNorm) and module.weight is not None:
            module.weight.fill_(1.0)
        if isinstance(module, (nn.LayerNorm, nn.Linear, nn.Conv2d, nn.Conv3d)) and module.bias is not None:
            module.bias.zero_()
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            fan_in = parameter[0].numel() if parameter.ndim != 3 else min(parameter.shape[1:])
            parameter.normal_(0.0, max(fan_in, 1) ** -0.5)
        else:
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
