"""The logit lens of many blocks over a large vocabulary, without an array ``[sample, block, vocab]``.

Blocks go through the final norm and the head in one product as long as their logits stay below a fixed size, and
otherwise in several (one block of a batch at least); of each only the numbers that are asked for are kept.  At 262,144
tokens (Gemma 3) a batch of 32 rows and 34 blocks would be 1.1 GiB of float32, and as much again for every step after.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..models.anatomy import Anatomy
from ..models.refusal_tokens import refusal_sums

_PIECE = 2**22
"""Most logits of one product: 16 MiB in float32, which the C library's allocator gives again without new pages."""


@torch.inference_mode()
def read_lens(
    anatomy: Anatomy, states: torch.Tensor, refusal: Sequence[int], final: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """What the lens says of each block.

    Args:
        anatomy: final norm and head.
        states: resid_post ``[row, block, d_model]``, the last block's before the final norm.
        refusal: token ids that begin a refusal.
        final: the model's own first-token logits ``[row, vocab]``.

    Returns:
        ``log_odds`` of refusal (float32 ``[row, block]``, in nats), ``top`` token (int64 ``[row, block]``), and with
        ``final`` the ``kl`` divergence of each block from it (float32 ``[row, block]``, in nats).
    """
    logp = None if final is None else torch.log_softmax(final.float(), -1)
    pieces: dict[str, list[torch.Tensor]] = {}
    size = max(1, _PIECE // (max(len(states), 1) * anatomy.vocab_size))
    for part in states.split(size, dim=1):
        logits = anatomy.lens(part).float()  # [row, some blocks, vocab]
        inside, outside = refusal_sums(logits, refusal)
        found = {"log_odds": inside - outside, "top": logits.argmax(-1)}
        if logp is not None:
            found["kl"] = _kl_to(logp, logits, torch.logaddexp(inside, outside))
        for name, value in found.items():
            pieces.setdefault(name, []).append(value)
    return {name: torch.cat(values, dim=1) for name, values in pieces.items()}


def _kl_to(logp: torch.Tensor, lens: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """KL of lens logits ``[row, block, vocab]``, whose log-sum-exp is ``total``, from ``logp [row, vocab]``."""
    p = logp.exp()
    expected = torch.einsum("bv,bkv->bk", p, lens)  # no second array of the lens's size
    return ((p * logp).sum(-1, keepdim=True) - expected + total).clamp(min=0)
