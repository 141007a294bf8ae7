"""Tiny models of families without a row in the table, built from their configurations with random weights.

Each builder gives ``(model, processor)`` (a tokenizer for text).  They are what a user may load tomorrow: the
toolkit knows nothing about them but their structure.
"""

from __future__ import annotations

import transformers as hf

from lvlm_lens.models.processors import StillVideoProcessor
from lvlm_lens.models.tiny import gemma_like, llava_like, parts, qwen_like

MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def _qwen_tower(**more):
    return {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 4, "out_hidden_size": 64,
        "num_position_embeddings": 64, **more,
    }  # fmt: skip


def _qwen(config, model, text, tower):
    tokenizer = parts.make_tokenizer(qwen_like._SPECIAL)
    built = config(text_config={**parts.sizes(tokenizer), **text}, vision_config=tower, **qwen_like._ids(tokenizer))
    owner = hf.Qwen3VLProcessor(
        qwen_like._images(4), tokenizer, StillVideoProcessor(), chat_template=qwen_like._TEMPLATE
    )
    return parts.drawn(model(built), 0), owner


_INTERLEAVED = {**qwen_like._MROPE, "mrope_interleaved": True}


def qwen3_vl_moe():
    text = {"head_dim": 16, "rope_parameters": _INTERLEAVED, **MOE}
    tower = _qwen_tower(deepstack_visual_indexes=[0, 1])
    return _qwen(hf.Qwen3VLMoeConfig, hf.Qwen3VLMoeForConditionalGeneration, text, tower)


_HYBRID = {
    "head_dim": 16,
    "rope_parameters": {**_INTERLEAVED, "mrope_section": [1, 2, 1], "partial_rotary_factor": 0.5},
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
}  # fmt: skip


def qwen3_5():
    return _qwen(hf.Qwen3_5Config, hf.Qwen3_5ForConditionalGeneration, _HYBRID, _qwen_tower())


def qwen3_5_moe():
    text = {**_HYBRID, **MOE, "shared_expert_intermediate_size": 32}
    return _qwen(hf.Qwen3_5MoeConfig, hf.Qwen3_5MoeForConditionalGeneration, text, _qwen_tower())


def glm4v_moe():
    dense, owner = qwen_like.glm4v()
    config = dense.config
    text = config.text_config.to_dict()
    for name in ("model_type", "transformers_version"):
        text.pop(name, None)
    moe = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}
    ids = {name: value for name, value in config.to_dict().items() if name.endswith("_token_id")}
    tower = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "image_size": 32, "patch_size": 4,
        "out_hidden_size": 64,
    }  # fmt: skip
    built = hf.Glm4vMoeConfig(text_config={**text, **moe}, vision_config=tower, **ids)
    return parts.drawn(hf.Glm4vMoeForConditionalGeneration(built), 0), owner


def ernie4_5_vl_moe():
    from transformers.models.ernie4_5_vl_moe.image_processing_pil_ernie4_5_vl_moe import Ernie4_5_VLMoeImageProcessorPil

    special = {
        "image_token": "<|IMAGE_PLACEHOLDER|>", "image_start_token": "<|IMAGE_START|>",
        "image_end_token": "<|IMAGE_END|>", "video_token": "<|VIDEO_PLACEHOLDER|>",
        "video_start_token": "<|VIDEO_START|>", "video_end_token": "<|VIDEO_END|>",
    }  # fmt: skip
    tokenizer = parts.make_tokenizer(special)
    built = hf.Ernie4_5_VLMoeConfig(
        text_config={
            **parts.sizes(tokenizer), "moe_intermediate_size": [32, 16], "moe_k": 2, "moe_num_experts": 4,
            "moe_num_shared_experts": 1, "rope_parameters": {**qwen_like._MROPE, "mrope_section": [3, 3, 2]},
        },
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 4},
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in special.items()},
    )  # fmt: skip
    images = Ernie4_5_VLMoeImageProcessorPil(
        patch_size=4, merge_size=2, size={"shortest_edge": 256, "longest_edge": 1536}
    )
    template = parts.chat_template("<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>", trim=False)
    owner = hf.Ernie4_5_VLMoeProcessor(images, tokenizer, StillVideoProcessor(), chat_template=template)
    return parts.drawn(hf.Ernie4_5_VLMoeForConditionalGeneration(built), 0), owner


def paddleocr_vl():
    from transformers.models.paddleocr_vl.image_processing_pil_paddleocr_vl import PaddleOCRVLImageProcessorPil

    tokenizer = parts.make_tokenizer(qwen_like._SPECIAL)
    built = hf.PaddleOCRVLConfig(
        text_config={**parts.sizes(tokenizer), "head_dim": 16, "rope_parameters": qwen_like._MROPE},
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 4,
        },
        **qwen_like._ids(tokenizer),
    )  # fmt: skip
    images = PaddleOCRVLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=256, max_pixels=1536)
    owner = hf.PaddleOCRVLProcessor(images, tokenizer, chat_template=qwen_like._TEMPLATE)
    return parts.drawn(hf.PaddleOCRVLForConditionalGeneration(built), 0), owner


# -- post-norm, residual multipliers -----------------------------------------------------------------


def llava_on(text):
    """LLaVA around another language model, whose configuration ``text(sizes)`` makes."""
    plain, owner = llava_like.llava()
    config = hf.LlavaConfig(
        **{
            **plain.config.to_dict(),
            "vision_config": llava_like.siglip(),
            "text_config": text(parts.sizes(owner.tokenizer)),
        }
    )
    return parts.drawn(hf.LlavaForConditionalGeneration(config), 0), owner


def llava_gemma2():
    return llava_on(lambda sizes: hf.Gemma2Config(**sizes, head_dim=16, sliding_window=8, query_pre_attn_scalar=16))


def llava_olmo2():
    return llava_on(lambda sizes: hf.Olmo2Config(**sizes))


def llava_exaone4():
    return llava_on(lambda sizes: hf.Exaone4Config(**sizes, sliding_window=8, sliding_window_pattern=2))


def llava_granite():
    return llava_on(lambda sizes: hf.GraniteConfig(**sizes, **GRANITE))


GRANITE = {
    "residual_multiplier": 0.22,
    "embedding_multiplier": 12.0,
    "logits_scaling": 8.0,
    "attention_multiplier": 0.1,
}


def granite_vision():
    plain, owner = llava_like.llava_next()
    config = hf.LlavaNextConfig(
        **{
            **plain.config.to_dict(),
            "vision_config": llava_like._clip(),
            "text_config": hf.GraniteConfig(**parts.sizes(owner.tokenizer), **GRANITE),
        }
    )
    return parts.drawn(hf.LlavaNextForConditionalGeneration(config), 0), owner


def granite4_vision():
    """A Granite decoder into whose blocks features of several tower blocks are added; as many projectors as blocks."""
    from transformers.models.granite4_vision.configuration_granite4_vision import Granite4VisionTextConfig
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    tokenizer, grid = parts.make_tokenizer({"image_token": "<image>"}), [[32, 64], [64, 32], [64, 64]]
    config = hf.Granite4VisionConfig(
        vision_config=llava_like.siglip(hidden_size=64).to_dict(),
        text_config=Granite4VisionTextConfig(**parts.sizes(tokenizer), **GRANITE).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_grid_pinpoints=grid, downsample_rate="1/2",
        deepstack_layer_map=[(-1, 0), (-2, 1)], spatial_target_layers=[0, 1, 2, 3],
        vision_feature_select_strategy="full", vision_feature_layer=-1,
    )  # fmt: skip
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=grid
    )
    owner = hf.Granite4VisionProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="full", downsample_rate="1/2",
        chat_template=parts.chat_template(),
    )  # fmt: skip
    return parts.drawn(hf.Granite4VisionForConditionalGeneration(config), 0), owner


def paligemma_2():
    _, owner = gemma_like.paligemma()
    text = hf.Gemma2Config(
        **parts.sizes(owner.tokenizer), head_dim=16, sliding_window=8, query_pre_attn_scalar=16,
        final_logit_softcapping=5.0, use_bidirectional_attention=True,
    )  # fmt: skip
    config = hf.PaliGemmaConfig(
        vision_config=llava_like.siglip(projection_dim=64), text_config=text, projection_dim=64, hidden_size=64,
        image_token_index=owner.tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return parts.drawn(hf.PaliGemmaForConditionalGeneration(config), 0), owner


# -- text only --------------------------------------------------------------------------------------


def text_model(config, model, drop=(), **more):
    tokenizer = parts.make_tokenizer()
    tokenizer.chat_template = parts.chat_template()
    sizes = {name: value for name, value in parts.sizes(tokenizer).items() if name not in drop}
    return parts.drawn(model(config(**sizes, **more)), 0), tokenizer


def olmo2():
    return text_model(hf.Olmo2Config, hf.Olmo2ForCausalLM)


def exaone4():
    return text_model(hf.Exaone4Config, hf.Exaone4ForCausalLM, sliding_window=8, sliding_window_pattern=2)


def gemma2():
    return text_model(
        hf.Gemma2Config, hf.Gemma2ForCausalLM, head_dim=16, sliding_window=8, query_pre_attn_scalar=16,
        final_logit_softcapping=5.0,
    )  # fmt: skip


def granite():
    return text_model(hf.GraniteConfig, hf.GraniteForCausalLM, **GRANITE)


def phi3_long():
    scaling = {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
        "original_max_position_embeddings": 32,
    }  # fmt: skip
    return text_model(hf.Phi3Config, hf.Phi3ForCausalLM, rope_parameters=scaling, original_max_position_embeddings=32)


def bloom():
    return text_model(
        hf.BloomConfig, hf.BloomForCausalLM,
        ("intermediate_size", "num_key_value_heads", "num_attention_heads", "num_hidden_layers"), n_layer=4, n_head=4,
    )  # fmt: skip


def gpt2():
    return text_model(hf.GPT2Config, hf.GPT2LMHeadModel, ("intermediate_size", "num_key_value_heads"))


def mamba2():
    return text_model(
        hf.Mamba2Config, hf.Mamba2ForCausalLM, ("intermediate_size", "num_attention_heads", "num_key_value_heads"),
        num_heads=8, head_dim=16, state_size=16, n_groups=1, chunk_size=8,
    )  # fmt: skip


def jamba():
    return text_model(
        hf.JambaConfig, hf.JambaForCausalLM, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2,
        expert_layer_offset=1, num_experts=4, num_experts_per_tok=2, mamba_d_state=8, use_mamba_kernels=False,
    )  # fmt: skip


def falcon_h1():
    return text_model(
        hf.FalconH1Config, hf.FalconH1ForCausalLM, mamba_d_ssm=64, mamba_n_heads=4, mamba_d_head=16, mamba_d_state=8,
        mamba_n_groups=1, mamba_chunk_size=8, head_dim=16, embedding_multiplier=2.0, lm_head_multiplier=0.5,
        attention_out_multiplier=0.7, ssm_out_multiplier=0.8,
    )  # fmt: skip


def recurrent_gemma():
    return text_model(
        hf.RecurrentGemmaConfig, hf.RecurrentGemmaForCausalLM, lru_width=64, attention_window_size=8,
        block_types=["recurrent", "attention"], logits_soft_cap=5.0,
    )  # fmt: skip


def gpt_neox():
    return text_model(hf.GPTNeoXConfig, hf.GPTNeoXForCausalLM, ("num_key_value_heads",))


def cohere():
    return text_model(hf.CohereConfig, hf.CohereForCausalLM, logit_scale=0.25)


def phi():
    return text_model(hf.PhiConfig, hf.PhiForCausalLM)


def opt():
    return text_model(
        hf.OPTConfig, hf.OPTForCausalLM, ("intermediate_size", "num_key_value_heads"), ffn_dim=96,
        word_embed_proj_dim=64,
    )  # fmt: skip


def glm4():
    return text_model(hf.Glm4Config, hf.Glm4ForCausalLM, head_dim=16)


def smollm3():
    return text_model(hf.SmolLM3Config, hf.SmolLM3ForCausalLM)


STRANGERS = {
    builder.__name__: builder
    for builder in (
        qwen3_vl_moe, qwen3_5, qwen3_5_moe, glm4v_moe, ernie4_5_vl_moe, paddleocr_vl,
        llava_gemma2, llava_olmo2, llava_exaone4, llava_granite, granite_vision, granite4_vision, paligemma_2,
        olmo2, exaone4, gemma2, granite, phi3_long, bloom, gpt2, mamba2, jamba, falcon_h1, recurrent_gemma, gpt_neox,
        cohere, phi, opt, glm4, smollm3,
    )
}  # fmt: skip
