"""Where each family of models keeps its parts: one data table, a row per family, no subclass tree.

A row names, by dotted path from the loaded Hugging Face model, the decoder blocks, the final
norm, the unembedding head, the token embedding, the vision tower and its blocks, and the
projector; inside a block, the attention and MLP modules and their projections; and how
attention flows, which decides what the causal engine may resume.

``resolve(model)`` turns a row into an :class:`Anatomy`: the modules themselves.  A family
without a row is discovered from its structure with :func:`discover`, and refused with the name
of the part that is missing when it cannot be.

Block ``l`` runs from 0.  ``resid_pre`` of block ``l`` equals HF ``hidden_states[l]``;
``resid_post`` of block ``l`` equals ``hidden_states[l + 1]`` except for the last block, where HF's
last hidden state is already after the final norm.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from ..errors import ModelError
from .quantized import float_dtype

LOGITS = 2**24
"""Logits that are held at a time, whatever the vocabulary: 64 MiB of float32."""
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
_FOUR_NORMS: dict[str, Any] = {
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
        replace(_TEXT, model_type="gemma3_text", flow=frozenset({"sliding"}), **_FOUR_NORMS),
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
        replace(_LLAVA, model_type="gemma3", flow=frozenset({"bidirectional_image", "sliding"}), **_FOUR_NORMS),
        replace(
            _LLAVA,
            model_type="gemma4",
            projector="model.embed_vision",
            flow=frozenset({"bidirectional_image", "sliding", "per_layer_inputs", "shared_kv"}),
            **_FOUR_NORMS,
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


@dataclass(frozen=True)
class Anatomy:
    """The parts of one loaded model.

    Attributes:
        family: the row it was resolved from.
        blocks: decoder blocks, in order.
        norm, head, embed: final norm, unembedding, token embedding.
        vision, vision_blocks, projector: ``None`` / empty for text-only models.
        image_token_id: the id that stands for one image feature, or ``None``.
        d_model, n_heads, n_kv_heads, head_dim, vocab_size: sizes of the language model.
        softcap, logit_scale, barred: what the model does to logits after its head: a cap by tanh, a
            factor, and ids that it never lets win.
        refused: sites (name, block) that the check on load showed to be something else, each with what it saw.
    """

    family: Family
    decoder: nn.Module
    blocks: tuple[nn.Module, ...]
    norm: nn.Module
    head: nn.Module
    embed: nn.Module
    vision: nn.Module | None
    vision_blocks: tuple[nn.Module, ...]
    projector: nn.Module | None
    image_token_id: int | None
    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    softcap: float | None
    logit_scale: float
    barred: torch.Tensor | None = None
    refused: dict[tuple[str, int], str] = field(default_factory=dict)

    @property
    def n_blocks(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)

    def block_index(self, block: int) -> int:
        """Normalise a block number; negative ones count from the end."""
        index = block + self.n_blocks if block < 0 else block
        if not 0 <= index < self.n_blocks:
            raise ModelError(f"block {block} does not exist; this model has blocks 0 to {self.n_blocks - 1}")
        return index

    @property
    def _head_dtype(self) -> torch.dtype:
        return float_dtype(self.head, self.norm)

    def unembed(self, normed: torch.Tensor) -> torch.Tensor:
        """Logits ``[..., vocab]`` of states that are already after the final norm."""
        logits = self.head(normed.to(self._head_dtype))
        if self.logit_scale != 1.0:
            logits = logits * self.logit_scale
        if self.softcap:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        if self.barred is not None:
            logits[..., self.barred.to(logits.device)] = torch.finfo(logits.dtype).min
        return logits

    def lens(self, resid_post: torch.Tensor) -> torch.Tensor:
        """The logit lens: ``unembed(norm(resid_post))`` (nostalgebraist, 2020).

        ``resid_post`` is ``[..., d_model]`` **before** the final norm; for the last block the result
        equals the model's logits.
        """
        return self.unembed(self.norm(resid_post.to(self._head_dtype)))


def image_token_id(config: Any) -> int | None:
    """The image placeholder id under any of the names that families use."""
    for name in ("image_token_id", "image_token_index", "image_patch_id"):
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    words = getattr(config, "vocabulary_map", None) or {}
    return words.get("<image>")


def discover(model: nn.Module) -> Family:
    """A row for a family that has none, found from its structure.

    The decoder is the longest ``ModuleList`` of equal modules that contain attention and share
    the language model's hidden size; its parent must hold a norm.  Raises :class:`ModelError`
    naming the first part that was not found.
    """
    config: Any = model.config
    kind = getattr(config, "model_type", type(model).__name__)
    text = text_config(config)
    depth = getattr(text, "num_hidden_layers", None)
    vision_names = ("vision", "visual", "image", "vit", "vq", "audio")
    candidates = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) > 0
        and (depth is None or len(module) == depth)
        and not any(word in part for part in name.lower().split(".")[:-1] for word in vision_names)
    ]
    if not candidates:
        raise ModelError(f"family {kind!r}: no list of {depth} decoder blocks was found; add a row to FAMILIES")
    norms = ("final_norm", "final_layer_norm", "norm", "ln_f")

    def likely(item: tuple[str, nn.ModuleList]) -> tuple[bool, int, int]:
        beside = model.get_submodule(item[0].rpartition(".")[0])  # projectors may be as many as blocks
        return _child(beside, norms) is not None, len(item[1]), -len(item[0])

    path, blocks = max(candidates, key=likely)
    decoder_path, _, blocks_name = path.rpartition(".")
    decoder = model.get_submodule(decoder_path)

    norm = _child(decoder, norms)
    embed = _child(decoder, ("embed_tokens", "wte", "embed"), (nn.Embedding,))
    embeddings: Any = getattr(model, "get_output_embeddings", None)
    head_module = embeddings() if embeddings is not None else None
    head = next((name for name, module in model.named_modules() if module is head_module), None)
    for part, found in (("final norm", norm), ("token embedding", embed), ("head", head)):
        if found is None:
            raise ModelError(f"family {kind!r}: no {part} was found beside {path!r}; add a row to FAMILIES")
    assert norm is not None and embed is not None and head is not None
    vision = next(
        (
            name
            for name, module in model.named_modules()
            if name and any(word in name.split(".")[-1].lower() for word in ("vision_tower", "visual", "vision_model"))
        ),
        None,
    )
    vision_blocks = None
    if vision is not None:
        tower = model.get_submodule(vision)
        lists = [(n, m) for n, m in tower.named_modules() if isinstance(m, nn.ModuleList) and len(m) > 0]
        vision_blocks = max(lists, key=lambda item: len(item[1]))[0] if lists else None
    projector = next(
        (
            name
            for name, _ in model.named_modules()
            if any(word in name.split(".")[-1].lower() for word in ("projector", "connector", "merger", "aligner"))
        ),
        None,
    )
    return Family(
        kind,
        decoder=decoder_path,
        blocks=blocks_name,
        norm=norm,
        head=head,
        embed=embed,
        vision=vision,
        vision_blocks=vision_blocks,
        projector=projector,
        discovered=True,
        **_inside(blocks, f"family {kind!r}"),
    )


_ATTENTION = ("self_attn", "self_attention", "attn", "attention")
_STATE = ("linear_attn", "mamba", "mixer", "conv", "temporal_block", "recurrent", "ssm", "time_mix")
"""Names of modules that mix positions through a recurrent or convolutional state."""
_MLP = ("mlp", "feed_forward", "ffn", "moe", "fc2")
_MIDDLE = (
    "post_attention_layernorm",
    "ffn_norm",
    "pre_feedforward_layernorm",
    "pre_ff_layernorm",
    "pre_mlp_layernorm",
    "channel_pre_norm",
    "norm2",
    "ln_2",
)


def _child(parent: nn.Module, words: Sequence[str], kinds: tuple[type, ...] = (nn.Module,)) -> str | None:
    """The name of the first child that one of the words, in order, is part of; norms only by words that say so."""
    for word in words:
        for name, module in parent.named_children():
            lower = name.lower()
            plain = not any(other in lower for other in ("norm", "dropout"))
            asked = plain or ("norm" in word and not ("embed" in lower and "embed" not in word))
            if word in lower and isinstance(module, kinds) and asked:
                return name
    return None


def _mixers(block: nn.Module) -> tuple[str | None, str | None]:
    """Names of a block's attention and of what it keeps a state in, ``None`` where it has no such child."""
    state = next(
        (n for n, _ in block.named_children() if any(w in n.lower() for w in _STATE) and "norm" not in n), None
    )
    others = nn.ModuleDict({name: child for name, child in block.named_children() if name != state})
    return _child(others, _ATTENTION), state


def _inside(blocks: nn.ModuleList, family: str) -> dict[str, Any]:
    """What stands inside the blocks of a family that has no row; blocks may be of two kinds."""
    kinds = [_mixers(block) for block in blocks]
    attn = next((attn for attn, _ in kinds if attn is not None), None)
    state = next((state for _, state in kinds if state is not None), None)
    if attn is None and state is None:
        raise ModelError(f"{family}: no attention was found in its blocks; add a row to FAMILIES")
    main = attn or state
    block = next(block for block in blocks if submodule(block, main) is not None)
    names = {name for name, _ in block.get_submodule(main or "").named_children()}
    return {
        "attn": main,
        "other_attn": state if attn is not None else None,
        "mlp": _child(block, _MLP) or "",
        "mid_norm": _child(block, _MIDDLE),
        "q": "q_proj" if "q_proj" in names else None,
        "k": "k_proj" if "k_proj" in names else None,
        "v": "v_proj" if "v_proj" in names else None,
        "o": next((name for name in ("o_proj", "out_proj", "dense", "c_proj") if name in names), None),
    }


_AFTER_NORMS: tuple[tuple[set[str], dict[str, str | None]], ...] = (
    ({"post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"}, _FOUR_NORMS),
    (
        {"post_self_attn_layernorm", "post_mlp_layernorm"},
        {"attn_post_norm": "post_self_attn_layernorm", "mlp_post_norm": "post_mlp_layernorm"},
    ),
    (
        {"post_attention_layernorm", "post_feedforward_layernorm"},  # and none before the MLP, which reads the residual
        {"attn_post_norm": "post_attention_layernorm", "mlp_post_norm": "post_feedforward_layernorm", "mid_norm": None},
    ),
)
"""Names of norms in a block that together say: what it writes is normalised, by these, before it is added."""


def _what_is_added(row: Family, block: nn.Module) -> Family:
    """The row with the norms through which a block's writing goes into the residual, where the row names none."""
    if row.attn_post_norm or row.mlp_post_norm:
        return row
    names = {name for name, _ in block.named_children()}
    for told, norms in _AFTER_NORMS:
        if told <= names:
            found = {"mid_norm": norms.get("mid_norm", row.mid_norm) or row.mlp}
            return replace(row, **{**norms, **found})  # type: ignore[arg-type]
    return row


def _beside_the_residual(model: nn.Module, blocks: Sequence[nn.Module]) -> frozenset[Flow]:
    """What blocks of a family without a row may read beside the residual, by its configuration and structure."""
    config: Any = model.config
    text, vision = text_config(config), getattr(config, "vision_config", None)
    kinds = set(getattr(text, "layer_types", None) or ())
    found: set[Flow] = set()
    if any(_mixers(block)[1] is not None for block in blocks):
        found.add("linear")
    if any("cross" in name.lower() for block in blocks for name, _ in block.named_children()):
        found.add("cross_attention")
    if getattr(vision, "deepstack_visual_indexes", None):
        found.add("deepstack")
    if getattr(text, "num_kv_shared_layers", 0):
        found.add("shared_kv")
    if getattr(text, "hidden_size_per_layer_input", 0):
        found.add("per_layer_inputs")
    if "chunked_attention" in kinds:
        found.add("chunked")
    if "sliding_attention" in kinds:
        found.add("sliding")
    if "mrope_section" in str(getattr(text, "rope_parameters", None)):
        found.add("mrope")
    if submodule(model, "model.vocabulary_mapping") is not None:
        found.add("discrete")
    return frozenset(found)


def _tower_blocks(vision: nn.Module | None, path: str | None) -> nn.Module | None:
    """The blocks of a vision tower; towers of several makers fit one family, so a wrong path means the longest list."""
    if vision is None or path is None:
        return None
    found = submodule(vision, path)
    if not isinstance(found, nn.ModuleList):
        lists = [module for module in vision.modules() if isinstance(module, nn.ModuleList)]
        found = max(lists, key=len, default=None)
    return found


UNSUITED = {
    "got_ocr2": "is made for reading documents: it knows the prompts that its processor writes by itself (OCR) and has "
    "no chat template, so there is no question to ask it",
    "fuyu": "has a processor that writes the picture's tokens and the beginning of the answer by itself and does not "
    "tell which characters a token covers, so the question's tokens cannot be found",
}
"""Families that load and could be called, and why nothing is measured on them."""


def resolve(model: nn.Module) -> Anatomy:
    """Find every part of a loaded Hugging Face model; raises :class:`ModelError` naming what is missing."""
    config: Any = model.config
    kind = getattr(config, "model_type", "")
    if getattr(config, "is_encoder_decoder", False) or getattr(text_config(config), "is_encoder_decoder", False):
        raise ModelError(
            f"family {kind!r} is an encoder-decoder: an encoder reads its prompt, and its decoder's blocks, which are "
            "what is looked into here, see only the answer; use a model whose decoder reads picture and words"
        )
    if kind in UNSUITED:
        raise ModelError(f"family {kind!r} {UNSUITED[kind]}")
    row = FAMILIES.get(kind)
    blocks = None if row is None else submodule(submodule(model, row.decoder) or nn.Module(), row.blocks)
    if row is None or not isinstance(blocks, nn.ModuleList) or not any(submodule(b, row.attn) for b in blocks):
        # an unknown family, or a known one around a language model of another shape
        flow = frozenset() if row is None else row.flow
        row = discover(model)
        own = submodule(submodule(model, row.decoder) or nn.Module(), row.blocks)
        row = replace(row, flow=flow | _beside_the_residual(model, list(own or ())))  # type: ignore[call-overload, arg-type]
    decoder = submodule(model, row.decoder)
    if decoder is None:
        raise ModelError(f"family {row.model_type!r}: no decoder at {row.decoder!r} in {type(model).__name__}")
    found: dict[str, Any] = {}
    for part, root, path in (
        ("blocks", decoder, row.blocks),
        ("norm", decoder, row.norm),
        ("embed", decoder, row.embed),
        ("head", model, row.head),
    ):
        found[part] = submodule(root, path)
        if found[part] is None:
            raise ModelError(f"family {row.model_type!r}: no {part} at {path!r} in {type(root).__name__}")
    row = _what_is_added(row, found["blocks"][0])
    text = text_config(config)
    vision = submodule(model, row.vision)
    tower_blocks = _tower_blocks(vision, row.vision_blocks)
    n_heads = int(getattr(text, "num_attention_heads", 1))
    owner: Any = submodule(model, row.head.rpartition(".")[0])
    try:
        after = inspect.getsource(inspect.unwrap(type(owner).forward))
    except (OSError, TypeError):  # code without a source; the check of the last block's lens decides
        after = ""
    # pictures made of words: some families bar these from being said
    words = (
        getattr(submodule(model, "model.vocabulary_mapping"), "image_tokens", None) if "image_tokens" in after else None
    )

    def after_head(*names: str) -> float | None:
        # a configuration may hold a factor that the multimodal class, unlike its text class, never applies
        values = [getattr(text, name, None) for name in names if name in after]
        return next((float(value) for value in values if value), None)

    return Anatomy(
        family=row,
        decoder=decoder,
        blocks=tuple(found["blocks"]),
        norm=found["norm"],
        head=found["head"],
        embed=found["embed"],
        vision=vision,
        vision_blocks=tuple(tower_blocks) if isinstance(tower_blocks, nn.ModuleList) else (),
        projector=submodule(model, row.projector),
        image_token_id=image_token_id(config),
        d_model=int(text.hidden_size),
        n_heads=n_heads,
        n_kv_heads=int(getattr(text, "num_key_value_heads", None) or n_heads),
        head_dim=int(getattr(text, "head_dim", None) or text.hidden_size // n_heads),
        vocab_size=int(getattr(found["head"], "out_features", None) or found["head"].weight.shape[0]),
        softcap=after_head("final_logit_softcapping", "logits_soft_cap"),
        logit_scale=(after_head("logit_scale", "lm_head_multiplier") or 1.0) / (after_head("logits_scaling") or 1.0),
        barred=torch.tensor(words) if words else None,
    )
