"""The parts of a loaded model, found by its family's row (:mod:`.families`) or from its structure (:mod:`.discovery`).

``resolve(model)`` turns a row into an :class:`Anatomy`: the modules themselves.  A family without a row is discovered,
and refused with the name of the part that is missing when it cannot be.

Block ``l`` runs from 0.  ``resid_pre`` of block ``l`` equals HF ``hidden_states[l]``;
``resid_post`` of block ``l`` equals ``hidden_states[l + 1]`` except for the last block, where HF's
last hidden state is already after the final norm.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from ..errors import ModelError
from .discovery import beside_the_residual, discover, image_token_id, what_is_added
from .families import FAMILIES, UNSUITED, Family, submodule, text_config
from .quantized import float_dtype

LOGITS = 2**24
"""Logits that are held at a time, whatever the vocabulary: 64 MiB of float32."""


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


def _tower_blocks(vision: nn.Module | None, path: str | None) -> nn.Module | None:
    """The blocks of a vision tower; towers of several makers fit one family, so a wrong path means the longest list."""
    if vision is None or path is None:
        return None
    found = submodule(vision, path)
    if not isinstance(found, nn.ModuleList):
        lists = [module for module in vision.modules() if isinstance(module, nn.ModuleList)]
        found = max(lists, key=len, default=None)
    return found


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
        row = replace(row, flow=flow | beside_the_residual(model, list(own or ())))  # type: ignore[call-overload, arg-type]
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
    row = what_is_added(row, found["blocks"][0])
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
