"""Every attention head switched off in turn: what each does to the answer and to the final states.

A head is a slice of ``head_dim`` columns of what enters o_proj; it is set to zero at every position, one head a
forward, and two things are kept: Ships' ``KL(P_base || P_ablated)`` at the last position (arXiv 2410.13708, read in the
authors' code) and the last-token state after the last block, which SASA's own head score [3P] is made of
(:mod:`lvlm_lens.locate.head_attribution`).

A head of block l changes nothing below l, so the untouched run keeps how each block was called and each head's run
begins at its own block: half the work, and the vision tower runs once.  Where something passes between blocks that is
not in those calls (DeepStack, shared keys and values) this would be wrong; so the lowest head of the first batch is
also run in full, and unless the logits agree every run is full, and ``reason`` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..activations.features import FeatureCache
from ..activations.hooks import attached
from ..activations.loop import run_batches
from ..activations.sites import Site, tap
from ..data import Sample
from ..interventions.edit import scale
from ..lens import LVLM
from ..locate.head_attribution import ships_kl
from ..models.encode import Encoded

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
"""Largest difference of logits, relative to the largest logit; 5e-2 in half precision."""


@dataclass(frozen=True)
class HeadScan:
    """What one head at a time does.

    Attributes:
        blocks: block numbers.
        kl: float64 ``[sample, block, head]``, nats.
        states: float32 ``[sample, d]``, resid_post of the last block at the last token, untouched.
        ablated: float32 ``[block, head, sample, d]``, the same with the head off.
        reason: why the runs were full forwards, or ``None`` where they began at the head's own block.
    """

    blocks: tuple[int, ...]
    kl: np.ndarray
    states: np.ndarray = field(repr=False)
    ablated: np.ndarray = field(repr=False)
    reason: str | None = None


class _Calls:
    """How every block was called in one run, so that a later run can begin at any of them."""

    def __init__(self, model: LVLM) -> None:
        self.model = model
        self.kept: list[tuple[Any, Any]] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep the calls of the forward inside."""

        def keep(module: Any, args: Any, kwargs: Any) -> None:
            self.kept.append((args, kwargs))

        self.kept = []
        handles = [b.register_forward_pre_hook(keep, with_kwargs=True) for b in self.model.anatomy.blocks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def run(self, first: int) -> torch.Tensor:
        """The last block's output ``[batch, position, d]`` of a run that begins at block ``first``."""
        hidden: torch.Tensor | None = None
        for block, (args, kwargs) in list(zip(self.model.anatomy.blocks, self.kept, strict=True))[first:]:
            if hidden is not None:
                if args and isinstance(args[0], torch.Tensor):
                    args = (hidden, *args[1:])
                else:
                    kwargs = {**kwargs, "hidden_states": hidden}
            output = block(*args, **kwargs)
            hidden = output[0] if isinstance(output, tuple) else output
        assert hidden is not None
        return hidden


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
    calls = _Calls(model)
    checked, reason = False, None

    def last_of(encoded: Encoded, value: torch.Tensor) -> torch.Tensor:
        last = torch.tensor([layout.last for layout in encoded.layouts], device=value.device)
        return value[torch.arange(len(value), device=value.device), last]

    def whole(encoded: Encoded, hooks: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        kept: list[torch.Tensor] = []

        def read(value: torch.Tensor, site: Site) -> None:
            kept.append(last_of(encoded, value))

        with attached([*hooks, (final, tap(final, anatomy), read)]):
            logits = model.logits(encoded)
        return logits, kept[0]

    @torch.inference_mode()
    def work(encoded: Encoded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        nonlocal checked, reason
        with calls.recording():
            base, state = whole(encoded, [])
        divergences = np.empty((len(encoded), len(chosen), heads))
        others = np.empty((len(chosen), heads, len(encoded), anatomy.d_model), dtype=np.float32)
        for at, block in enumerate(chosen):
            site = Site("z", block)
            for head in range(heads):
                hooks = [(site, tap(site, anatomy), scale(0.0, None, [head]))]
                if reason is None and len(calls.kept) == model.n_blocks:
                    with attached(hooks):
                        other = last_of(encoded, calls.run(block))
                    logits = anatomy.lens(other).float()
                    if not checked:
                        checked = True
                        full = whole(encoded, hooks)
                        allowed = _TOLERANCE.get(model.dtype, 5e-2) * max(1.0, float(full[0].abs().max()))
                        if not float((full[0] - logits).abs().max()) <= allowed:
                            reason, (logits, other) = "a run begun at a block differs from the whole forward", full
                else:
                    reason = reason or "blocks are not each called once in a forward"
                    logits, other = whole(encoded, hooks)
                divergences[:, at, head] = ships_kl(base, logits)
                others[at, head] = other.float().cpu().numpy()
        return state.float().cpu().numpy(), divergences, others

    for rows, (state, divergences, others) in run_batches(
        model, data, work, batch_size, progress=progress, features=FeatureCache(model)
    ):
        states[rows], kl[rows], ablated[:, :, rows] = state, divergences, others
    return HeadScan(chosen, kl, states, ablated, reason)
