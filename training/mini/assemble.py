"""The parts put together as a plain Hugging Face LLaVA checkpoint, and rounded for shipping.

Weights are stored in bfloat16 while the configuration says float32, so that plain
``from_pretrained`` computes in float32 and the package stays small.  Every figure of the card is
measured on the rounded weights.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

PATCH = 8
SIDE = 64


def tower_config() -> SiglipVisionConfig:
    """A SigLIP encoder: 5 blocks of width 160 on 64 patches of 8 x 8 pixels."""
    return SiglipVisionConfig(
        hidden_size=160,
        intermediate_size=640,
        num_hidden_layers=5,
        num_attention_heads=5,
        image_size=SIDE,
        patch_size=PATCH,
        vision_use_head=False,
    )


def decoder_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """A Llama decoder: 12 blocks of width 192, 6 query heads and 2 key-value heads of 32."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=448,
        num_hidden_layers=12,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def generation_config(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """Greedy, to the end of the turn."""
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=40,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def assemble(
    tower: SiglipVisionModel,
    decoder: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    projector: dict[str, torch.Tensor] | None = None,
) -> LlavaForConditionalGeneration:
    """One LLaVA model with the given tower and decoder; ``projector`` is its state dict, if trained."""
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=decoder.config,
        image_token_index=tokenizer.vocab["<image>"],
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )
    config.pad_token_id = tokenizer.pad_token_id
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(decoder.model.state_dict())
    model.lm_head.load_state_dict(decoder.lm_head.state_dict())
    if projector is not None:
        model.model.multi_modal_projector.load_state_dict(projector)
    model.generation_config = generation_config(tokenizer)
    return model.eval()


def processor_of(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """The processor: 64 x 64 pixels scaled to -1 .. 1 by a PIL-backed class, and the chat template."""
    image_processor = SiglipImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=True
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        chat_template=tokenizer.chat_template,
        image_token="<image>",
        num_additional_image_tokens=0,
    )


def _round_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config.get("text_config", {}), config.get("vision_config", {})):
        if part:
            part["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_model(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the whole checkpoint folder."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.text_config._name_or_path = ""  # else the folder that the decoder was loaded from is written down
    model.save_pretrained(folder)
    processor_of(tokenizer).save_pretrained(folder)
    _round_file(folder)


def save_backbone(decoder: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the language-only backbone."""
    folder.mkdir(parents=True, exist_ok=True)
    decoder.generation_config = generation_config(tokenizer)
    decoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _round_file(folder)
