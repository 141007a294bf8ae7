"""A family without a row: its parts found from the structure of the loaded model, and what its blocks read besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from ..errors import ModelError
from .families import FOUR_NORMS, Family, Flow, submodule, text_config


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
    ({"post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"}, FOUR_NORMS),
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


def what_is_added(row: Family, block: nn.Module) -> Family:
    """The row with the norms through which a block's writing goes into the residual, where the row names none."""
    if row.attn_post_norm or row.mlp_post_norm:
        return row
    names = {name for name, _ in block.named_children()}
    for told, norms in _AFTER_NORMS:
        if told <= names:
            found = {"mid_norm": norms.get("mid_norm", row.mid_norm) or row.mlp}
            return replace(row, **{**norms, **found})  # type: ignore[arg-type]
    return row


def beside_the_residual(model: nn.Module, blocks: Sequence[nn.Module]) -> frozenset[Flow]:
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


def image_token_id(config: Any) -> int | None:
    """The image placeholder id under any of the names that families use."""
    for name in ("image_token_id", "image_token_index", "image_patch_id"):
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    words = getattr(config, "vocabulary_map", None) or {}
    return words.get("<image>")
