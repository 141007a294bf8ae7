"""The causal validation of a projection: the same patch grid on the plain and on the projected network.

Pairs are those of which the plain model refuses the harmful member and answers the harmless one.  If the projection
carries the safety signal, what decides the answer moves: blocks below ``s`` act through both passes, blocks above it
start from the projected state.  Both grids use the same pairs, positions and metric; the projected one is run in
full, twice per forward (:func:`projected`), and says so.  [own]
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..activations import Site, attached, tap
from ..causal import PatchGrid, patch_grid
from ..data import Dataset, Pair, Sample
from ..errors import UsageError
from ..interventions.recording import record
from ..lens import LVLM
from ..models.batching import in_batches
from ..models.encode import Encoded
from ..models.refusal_tokens import refusal_log_odds, refusal_token_ids
from ..stats.groups import bootstrap_mean
from .projection import Cell, edit

FEWEST = 4
"""Pairs below which no grid is made."""
SPANS = ("image", "question", "last")


class _Projected(LVLM):
    """A view of a model that makes the projected state of a batch just before the batch is run."""

    cell: Cell
    hidden: torch.Tensor | None = None  # [R, T, d], for the one forward that follows
    recording = False

    def forward_inputs(self, encoded: Encoded) -> dict[str, Any]:
        if not self.recording:
            self.recording = True
            try:
                rec = record(self, encoded, keys=False, after={self.cell.safety, self.cell.fused})
            finally:
                self.recording = False
            self.hidden = edit(rec, encoded, self.cell).hidden
        return super().forward_inputs(encoded)


@contextmanager
def projected(model: LVLM, cell: Cell) -> Iterator[LVLM]:
    """A view of ``model`` on which every forward of an encoded batch is SASA's second pass.

    A whole forward first runs the plain network, projects the fused block's state onto the safety block's, and runs
    the network again with that state after the safety block.  Hooks of whoever looks (a patch, say) act in both passes,
    because the projected network *is* both passes.  The view shares its weights with ``model``, which computes as ever
    when the context is left; do not use ``model`` itself inside.

    Raises:
        UsageError: the network was called with inputs that did not come from the view, as it is in a generation.
    """
    view = copy.copy(model)
    view.__class__ = _Projected
    assert isinstance(view, _Projected)
    view.cell = cell
    site = Site("resid_post", cell.safety)

    def replaced(value: torch.Tensor, where: Site) -> torch.Tensor:
        if view.recording:
            return value
        hidden, view.hidden = view.hidden, None
        if hidden is None:
            raise UsageError("inside projected(), run batches through the projected view that encoded them")
        return hidden.to(value)

    with attached([(site, tap(site, model.anatomy), replaced)]):
        yield view


def deciding_pairs(model: LVLM, samples: Sequence[Sample], batch_size: int, most: int) -> list[Pair]:
    """At most ``most`` pairs that differ in the picture and in what the plain model does, widest gap first."""
    pairs = [pair for pair in Dataset(list(samples), "pairs").pairs() if pair.swap == "image"]
    members = list({s.id: s for pair in pairs for s in (pair.clean, pair.corrupted)}.values())
    if not members:
        return []
    tokens = refusal_token_ids(model)
    odds: dict[str, float] = {}
    for batch, found in in_batches(
        members, batch_size, lambda batch: model.logits(model.encode([members[i] for i in batch]))
    ):
        odds |= {members[i].id: value for i, value in zip(batch, refusal_log_odds(found, tokens).tolist(), strict=True)}
    able = [pair for pair in pairs if odds[pair.clean.id] > 0 >= odds[pair.corrupted.id]]
    return sorted(able, key=lambda pair: odds[pair.corrupted.id] - odds[pair.clean.id])[:most]


def patching_report(
    model: LVLM,
    samples: Sequence[Sample],
    cell: Cell,
    most: int = 12,
    batch_size: int = 32,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, PatchGrid]]:
    """Patch grids over blocks x (picture, question, last token), both ways, before and after the projection.

    Returns:
        A summary (``done``, ``pairs``, and in ``cells`` for each direction, position and block the mean effect in both
        grids and their paired difference with its interval from a bootstrap over groups of pairs; NaN where all pairs
        are of one group), and the grids under ``plain`` and ``projected``.
    """
    pairs = deciding_pairs(model, samples, batch_size, most)
    if len(pairs) < FEWEST:
        return {"done": False, "reason": f"{len(pairs)} pairs with a picture are told apart by the model"}, {}
    settings: dict[str, Any] = {"direction": "both", "null": 1, "seed": seed}
    grids = {"plain": patch_grid(model, pairs, "resid_post", SPANS, **settings)}
    try:
        with projected(model, cell) as view:
            settings |= {"null": 0, "verify": 0, "exact": "full"}
            grids["projected"] = patch_grid(view, pairs, "resid_post", SPANS, **settings)
    except UsageError as error:  # a family that has no state to project at some positions
        return {"done": False, "reason": str(error)}, {}
    return {"done": True, "pairs": len(pairs), "metric": grids["plain"].metric, **_compared(grids, seed)}, grids


def _compared(grids: dict[str, PatchGrid], seed: int, replicates: int = 2000) -> dict[str, Any]:
    """Effects in nats, mean over pairs: the two networks differ in their baselines, so shares would not compare."""
    plain, after = (_in_nats(grids[name]) for name in ("plain", "projected"))  # [direction, block, position, pair]
    apart = after - plain
    low, high = (
        bound.reshape(apart.shape[:-1])
        for bound in bootstrap_mean(apart.reshape(-1, apart.shape[-1]), grids["plain"].groups, replicates, seed=seed)
    )
    rows = []
    for d, direction in enumerate(grids["plain"].directions):
        for p, position in enumerate(grids["plain"].positions):
            for b, block in enumerate(grids["plain"].blocks):
                rows.append(
                    {
                        "direction": direction,
                        "position": position,
                        "block": int(block),
                        "plain": float(plain[d, b, p].mean()),
                        "projected": float(after[d, b, p].mean()),
                        "difference": float(apart[d, b, p].mean()),
                        "low": float(low[d, b, p]),
                        "high": float(high[d, b, p]),
                    }
                )
    return {
        "cells": rows,
        "gap_plain": float((grids["plain"].clean - grids["plain"].corrupted).mean()),
        "gap_projected": float((grids["projected"].clean - grids["projected"].corrupted).mean()),
        "engine": {name: grid.engine for name, grid in grids.items()},
    }


def _in_nats(grid: PatchGrid) -> np.ndarray:
    """What each patch changes, ``[direction, block, position, pair]``, positive towards the donor."""
    changed = []
    for d, direction in enumerate(grid.directions):
        start, sign = (grid.corrupted, 1.0) if direction == "denoise" else (grid.clean, -1.0)
        changed.append(sign * (grid.values[d, 0] - start))
    return np.stack(changed)
