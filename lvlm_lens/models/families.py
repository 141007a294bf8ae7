"""Where each family of models keeps its parts: one data table, a row per family, no subclass tree.

A row names, by dotted path from the loaded Hugging Face model, the decoder blocks, the final
norm, the unembedding head, the token embedding, the vision tower and its blocks, and the
projector; inside a block, the attention and MLP modules and their projections; and how
attention flows, which decides what the causal engine may resume.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

Flow = str
"""How a block may read more than earlier residuals of the same block through its own cache:

``bidirectional_image``  image tokens attend to later image tokens of the same picture
``prefix``               the whole prompt attends bidirectionally
``cross_attention``      some blocks read vision states that never enter the residual as tokens
``deepstack``            visual features are added to the residual of early blocks
``mrope``                positions have several axes
``sliding``              some blocks attend to a window only
``per_layer_inputs``     a block reads an embedding of the token beside the residual
``linear``               some blocks keep a recurrent or convolutional state instead of keys and values
``parallel``             attention and MLP read the same residual, so there is no resid_mid
``moe``                  tokens are routed to experts
``chunked``              some blocks attend within fixed chunks of the sequence
``shared_kv``            late blocks attend to keys and values that earlier blocks made
``flat``                 the MLP runs on rows ``[batch * position, d_model]`` without a batch axis
``needs_image``          the model does not run without a picture
``discrete``             a picture becomes words of the vocabulary
"""


@dataclass(frozen=True, slots=True)
class Family:
    """One row of the table: dotted paths (from the model, or from a block) of a family's parts."""

    model_type: str
    decoder: str = "model.language_model"
    blocks: str = "layers"
    norm: str = "norm"
    head: str = "lm_head"
    embed: str = "embed_tokens"
    vision: str | None = "model.vision_tower"
    vision_blocks: str | None = "encoder.layers"
    projector: str | None = "model.multi_modal_projector"
    attn: str = "self_attn"
    mlp: str = "mlp"
    mid_norm: str | None = "post_attention_layernorm"
    attn_post_norm: str | None = None
    mlp_post_norm: str | None = None
    q: str | None = "q_proj"
    k: str | None = "k_proj"
    v: str | None = "v_proj"
    o: str | None = "o_proj"
    down: str | None = "down_proj"
    other_attn: str | None = None
    several_images: bool = True
    flow: frozenset[Flow] = frozenset()
    discovered: bool = False


_TEXT = Family("llama", decoder="model", vision=None, vision_blocks=None, projector=None)
_LLAVA = Family("llava")
_QWEN_VL = Family(
    "qwen2_vl",
    vision="model.visual",
    vision_blocks="blocks",
    projector="model.visual.merger",
    flow=frozenset({"mrope"}),
)
_IDEFICS = Family(
    "idefics2",
    decoder="model.text_model",
    vision="model.vision_model",
    projector="model.connector",
)
FOUR_NORMS: dict[str, Any] = {
    "mid_norm": "pre_feedforward_layernorm",
    "attn_post_norm": "post_attention_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}

FAMILIES: dict[str, Family] = {
    row.model_type: row
    for row in (
        _TEXT,
        replace(_TEXT, model_type="qwen2"),
        replace(_TEXT, model_type="qwen3"),
        replace(_TEXT, model_type="mistral", flow=frozenset({"sliding"})),
        replace(_TEXT, model_type="gemma3_text", flow=frozenset({"sliding"}), **FOUR_NORMS),
        _LLAVA,
        replace(_LLAVA, model_type="llava_next"),
        replace(_LLAVA, model_type="llava_onevision"),
        replace(_LLAVA, model_type="vipllava"),
        replace(_LLAVA, model_type="internvl", vision_blocks="encoder.layer"),
        replace(_LLAVA, model_type="mistral3", vision_blocks="transformer.layers"),
        replace(_LLAVA, model_type="aya_vision", mid_norm=None, flow=frozenset({"parallel", "sliding"})),
        replace(_LLAVA, model_type="janus", vision="model.vision_model", projector="model.aligner"),
        _QWEN_VL,
        replace(_QWEN_VL, model_type="qwen2_5_vl"),
        replace(_QWEN_VL, model_type="qwen3_vl", flow=frozenset({"mrope", "deepstack"})),
        replace(
            _QWEN_VL,
            model_type="glm4v",
            attn_post_norm="post_self_attn_layernorm",
            mlp_post_norm="post_mlp_layernorm",
        ),
        _IDEFICS,
        replace(_IDEFICS, model_type="idefics3"),
        replace(_IDEFICS, model_type="smolvlm"),
        replace(_LLAVA, model_type="paligemma", flow=frozenset({"prefix", "needs_image"})),
        replace(_LLAVA, model_type="gemma3", flow=frozenset({"bidirectional_image", "sliding"}), **FOUR_NORMS),
        replace(
            _LLAVA,
            model_type="gemma4",
            projector="model.embed_vision",
            flow=frozenset({"bidirectional_image", "sliding", "per_layer_inputs", "shared_kv"}),
            **FOUR_NORMS,
        ),
        replace(
            _LLAVA,
            model_type="mllama",
            vision="model.vision_model",
            vision_blocks="transformer.layers",
            other_attn="cross_attn",
            flow=frozenset({"cross_attention"}),
        ),
        replace(
            _TEXT, model_type="chameleon", vision="model.vqmodel", vision_blocks=None, flow=frozenset({"discrete"})
        ),
        replace(
            _LLAVA,
            model_type="lfm2_vl",
            norm="embedding_norm",
            mlp="feed_forward",
            mid_norm="ffn_norm",
            o="out_proj",
            down="w2",
            other_attn="conv",
            flow=frozenset({"linear"}),
        ),
        Family(
            "llama4",
            decoder="language_model.model",
            head="language_model.lm_head",
            vision="vision_model",
            vision_blocks="model.layers",
            projector="multi_modal_projector",
            mlp="feed_forward",
            flow=frozenset({"moe", "chunked"}),
        ),
        replace(_LLAVA, model_type="molmo2", vision_blocks="layers", flow=frozenset({"bidirectional_image"})),
        Family(
            "blip-2",
            decoder="language_model.model.decoder",
            norm="final_layer_norm",
            head="language_model.lm_head",
            vision="vision_model",
            projector="language_projection",
            mlp="fc2",
            down="",
            mid_norm="final_layer_norm",
            o="out_proj",
            flow=frozenset({"flat", "needs_image"}),
            several_images=False,
        ),
        Family(
            "instructblip",
            decoder="language_model.model",
            head="language_model.lm_head",
            vision="vision_model",
            projector="language_projection",
            flow=frozenset({"needs_image"}),
            several_images=False,
        ),
    )
}
"""The table, by ``config.model_type``."""


UNSUITED = {
    "got_ocr2": "is made for reading documents: it knows the prompts that its processor writes by itself (OCR) and has "
    "no chat template, so there is no question to ask it",
    "fuyu": "has a processor that writes the picture's tokens and the beginning of the answer by itself and does not "
    "tell which characters a token covers, so the question's tokens cannot be found",
}
"""Families that load and could be called, and why nothing is measured on them."""


def submodule(root: nn.Module, path: str | None) -> nn.Module | None:
    """The module at a dotted path, or ``None`` where a step is missing."""
    if path is None:
        return None
    module: Any = root
    for step in path.split(".") if path else []:
        module = getattr(module, step, None)
        if module is None:
            return None
    return module


def text_config(config: Any) -> Any:
    """The configuration of the language model inside a multimodal configuration."""
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
