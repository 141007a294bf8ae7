"""Every attention head switched off in turn: what each does to the answer and to the final states.

A head is a slice of ``head_dim`` columns of what enters o_proj; it is set to zero at every position, one head a
forward, and two things are kept: Ships' ``KL(P_base || P_ablated)`` at the last position (arXiv 2410.13708, read in the
authors' code) and the last-token state after the last block, which SASA's own head score [3P] is made of
(:mod:`lvlm_lens.measures.head_attribution`).

A head of block l changes nothing below l, so each head's run begins at its own block
(:mod:`lvlm_lens.interventions.rerun`): half the work, and the vision tower runs once.  The first run, of the lowest
head, is also done as a whole forward, and unless the logits agree every run is whole, and ``reason`` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..activations.features import FeatureCache
from ..activations.loop import run_batches
from ..activations.sites import Site
from ..data import Sample
from ..errors import UsageError
from ..interventions.edit import scale
from ..interventions.recording import record
from ..interventions.rerun import Reruns
from ..lens import LVLM
from ..models.encode import Encoded


@dataclass(frozen=True)
class HeadScan:
    """What one head at a time does.

    Attributes:
        blocks: block numbers.
        kl: float64 ``[sample, block, head]``, nats.
        states: float32 ``[sample, d]``, resid_post of the last block at the last token, untouched.
        ablated: float32 ``[block, head, sample, d]``, the same with the head off.
        reason: why the runs were whole forwards, or ``None`` where they began at the head's own block.
    """

    blocks: tuple[int, ...]
    kl: np.ndarray
    states: np.ndarray = field(repr=False)
    ablated: np.ndarray = field(repr=False)
    reason: str | None = None


def scan_heads(
    model: LVLM,
    data: Sequence[Sample],
    blocks: Sequence[int] | None = None,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> HeadScan:
    """Zero every head of the given blocks (default all), one at a time."""
    anatomy = model.anatomy
    chosen = tuple(range(model.n_blocks)) if blocks is None else tuple(anatomy.block_index(b) for b in blocks)
    n, heads, end = len(data), anatomy.n_heads, model.n_blocks - 1
    kl = np.empty((n, len(chosen), heads))
    states = np.empty((n, anatomy.d_model), dtype=np.float32)
    ablated = np.empty((len(chosen), heads, n, anatomy.d_model), dtype=np.float32)
    reruns = Reruns(model)

    @torch.inference_mode()
    def work(encoded: Encoded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rec = record(model, encoded, keys=False, after={end, *(block - 1 for block in chosen)})
        assert rec.logits is not None
        lowest = min(chosen)
        reruns.check(rec, encoded, lowest - 1, edits=[(Site("z", lowest), scale(0.0, None, [0]))])
        divergences = np.empty((len(encoded), len(chosen), heads))
        others = np.empty((len(chosen), heads, len(encoded), anatomy.d_model), dtype=np.float32)
        for at, block in enumerate(chosen):
            for head in range(heads):
                off = [(Site("z", block), scale(0.0, None, [head]))]
                found = reruns.run(rec, encoded, block - 1, edits=off)
                divergences[:, at, head] = ships_kl(rec.logits, found.logits)
                others[at, head] = found.states[end].cpu().numpy()
        return rec.at_last(rec.left[end]).float().cpu().numpy(), divergences, others

    for rows, (state, divergences, others) in run_batches(
        model, data, work, batch_size, progress=progress, features=FeatureCache(model)
    ):
        states[rows], kl[rows], ablated[:, :, rows] = state, divergences, others
    return HeadScan(chosen, kl, states, ablated, reruns.reason)


def ships_kl(base_logits: Any, ablated_logits: Any) -> np.ndarray:
    """``KL(p_base || p_ablated)`` in nats for each sample.

    Args:
        base_logits: ``[sample, vocab]``.
        ablated_logits: ``[..., sample, vocab]``, e.g. ``[block, head, sample, vocab]``.

    Returns:
        ``[..., sample]`` float64.
    """
    base = torch.log_softmax(torch.as_tensor(base_logits).double(), -1)
    other = torch.log_softmax(torch.as_tensor(ablated_logits).double(), -1)
    if base.shape != other.shape[-2:]:
        raise UsageError(f"base logits {tuple(base.shape)} and ablated logits {tuple(other.shape)} do not match")
    return (base.exp() * (base - other)).sum(-1).cpu().numpy()
