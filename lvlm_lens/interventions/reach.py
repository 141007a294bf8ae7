"""How far a change reaches: which positions it can change, and whether a run begun above it is exact."""

from __future__ import annotations

import torch

from ..models.loaded import LoadedModel
from .recording import Recording

UNRESUMABLE = {
    "linear": "some blocks keep a recurrent state instead of keys and values",
    "per_layer_inputs": "blocks read per-layer embeddings beside the residual",
    "shared_kv": "late blocks read the keys and values of earlier ones",
    "cross_attention": "some blocks read the picture's own states beside the residual",
    "chunked": "attention is scaled by each token's place, which a suffix run by itself would miscount",
}
_KNOWN = ("position_embeddings", "attention_mask", "position_ids", "cache_position")
CACHE = ("past_key_values", "past_key_value", "layer_past")
"""Names under which blocks take their cache."""


def obstacle(model: LoadedModel, rec: Recording) -> str | None:
    """Why cells of this recording cannot be resumed exactly, or ``None`` where they can."""
    row = model.anatomy.family
    for flow, reason in UNRESUMABLE.items():
        if flow in row.flow:
            return reason
    if rec.order != list(range(model.n_blocks)):
        return f"{len(rec.order)} block calls in one forward, {model.n_blocks} expected, each once and in order"
    for block, call in rec.calls.items():
        if block not in rec.keys:
            return f"block {block} keeps no keys and values"
        if not any(name in call for name in CACHE):
            return f"block {block} takes its cache under a name that is not known"
        strange = [k for k, v in call.items() if isinstance(v, torch.Tensor) and k not in _KNOWN]
        if strange:
            return f"block {block} also reads {', '.join(strange)}"
        mask = call.get("attention_mask")
        if mask is not None and (not isinstance(mask, torch.Tensor) or mask.ndim != 4):
            return f"block {block} takes an attention mask that is not [batch, heads, query, key]"
        attn = getattr(model.anatomy.blocks[block], row.attn, None)
        if mask is None and not getattr(attn, "is_causal", False):
            return f"attention of block {block} is not causal"
    return None


def suffix_starts(rec: Recording) -> torch.Tensor:
    """``[R, T]``: for each position, the first one that a change there can reach, read off the masks."""
    reach = torch.arange(rec.length).repeat(rec.rows, 1)  # [R, T]: the last key that a query reads
    masks = [call.get("attention_mask") for call in rec.calls.values()]
    for mask in {id(mask): mask for mask in masks if mask is not None}.values():
        seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        keys = torch.arange(rec.length, device=mask.device)
        furthest = (seen.any(1) * keys).amax(-1).expand(rec.rows, -1)  # [R, T]
        reach = torch.maximum(reach, furthest.cpu())
    # nothing reads the output of padding
    reach = torch.where(rec.attended.cpu(), reach, torch.arange(rec.length))
    starts = []
    for far in reach.tolist():
        own, furthest, start = [], -1, 0
        for position, reached in enumerate(far):  # a suffix may begin where no earlier query reads beyond it
            if furthest < position:
                start = position
            own.append(start)
            furthest = max(furthest, reached)
        starts.append(own)
    return torch.tensor(starts)
