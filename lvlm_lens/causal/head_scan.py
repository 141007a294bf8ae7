"""Every attention head switched off in turn: what each does to the answer and to the final states.

A head is a slice of ``head_dim`` columns of what enters o_proj; it is set to zero at every position, one head a
forward, and two things are kept: Ships' ``KL(P_base || P_ablated)`` at the last position (arXiv 2410.13708, read in the
authors' code) and the last-token state after the last block, which SASA's own head score [3P] is made of
(:mod:`lvlm_lens.locate.head_attribution`).  A picture goes through the vision tower once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..activations.edit import scale
from ..activations.features import FeatureCache
from ..activations.hooks import attached
from ..activations.loop import run_batches
from ..activations.sites import Site, tap
from ..data import Sample
from ..locate.head_attribution import ships_kl
from ..models.encode import Encoded
from ..models.lvlm import LVLM


@dataclass(frozen=True)
class HeadScan:
    """What one head at a time does.

    Attributes:
        blocks: block numbers.
        kl: float64 ``[sample, block, head]``, nats.
        states: float32 ``[sample, d]``, resid_post of the last block at the last token, untouched.
        ablated: float32 ``[block, head, sample, d]``, the same with the head off.
    """

    blocks: tuple[int, ...]
    kl: np.ndarray
    states: np.ndarray = field(repr=False)
    ablated: np.ndarray = field(repr=False)


def scan_heads(
    model: LVLM,
    data: Sequence[Sample],
    blocks: Sequence[int] | None = None,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> HeadScan:
    """Zero every head of the given blocks (default all), one at a time."""
    anatomy = model.anatomy
    chosen = tuple(range(model.n_blocks)) if blocks is None else tuple(anatomy.block_index(b) for b in blocks)
    n, heads = len(data), anatomy.n_heads
    kl = np.empty((n, len(chosen), heads))
    states = np.empty((n, anatomy.d_model), dtype=np.float32)
    ablated = np.empty((len(chosen), heads, n, anatomy.d_model), dtype=np.float32)
    final = Site("resid_post", model.n_blocks - 1)

    def one(encoded: Encoded, hooks: list) -> tuple[torch.Tensor, torch.Tensor]:
        kept: list[torch.Tensor] = []
        last = torch.tensor([layout.last for layout in encoded.layouts])

        def read(value: torch.Tensor, site: Site) -> None:
            kept.append(value[torch.arange(len(value)), last.to(value.device)].float().cpu())

        with attached([*hooks, (final, tap(final, anatomy), read)]):
            logits = model.logits(encoded).cpu()
        return logits, kept[0]

    def work(encoded: Encoded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        base, state = one(encoded, [])
        divergences = np.empty((len(encoded), len(chosen), heads))
        others = np.empty((len(chosen), heads, len(encoded), anatomy.d_model), dtype=np.float32)
        for at, block in enumerate(chosen):
            site = Site("z", block)
            for head in range(heads):
                logits, other = one(encoded, [(site, tap(site, anatomy), scale(0.0, None, [head]))])
                divergences[:, at, head] = ships_kl(base, logits)
                others[at, head] = other.numpy()
        return state.numpy(), divergences, others

    for rows, (state, divergences, others) in run_batches(
        model, data, work, batch_size, progress=progress, features=FeatureCache(model)
    ):
        states[rows], kl[rows], ablated[:, :, rows] = state, divergences, others
    return HeadScan(chosen, kl, states, ablated)
