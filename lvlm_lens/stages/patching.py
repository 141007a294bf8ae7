"""Fourth stage: which blocks and positions decide, by patching matched pairs both ways.

The pairs are those whose behaviour differs: the harmful input is refused and its harmless
counterfactual is answered.  Where a model has too few of them (it refuses nothing, or everything),
nothing is patched and the result says so: a grid over pairs that behave alike would explain nothing.
"""

from __future__ import annotations

import random
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..causal import PatchGrid, patch_grid
from ..data import Dataset, Pair
from ..errors import DataError
from ..locate.evidence import Evidence
from ..models.lvlm import LVLM

FEWEST = 8
"""Pairs below which nothing is patched: an interval over fewer says nothing."""

Tell = Callable[[str, int, int], None]


def behaving_pairs(data: Dataset, evidence: Evidence) -> list[Pair]:
    """Pairs that differ in their picture, whose harmful member is refused and whose harmless one is answered."""
    refused = {sample.id: bool(odds > 0) for sample, odds in zip(evidence.samples, evidence.log_odds, strict=True)}
    return [
        pair
        for pair in data.pairs()
        if pair.swap == "image" and refused.get(pair.clean.id) is True and refused.get(pair.corrupted.id) is False
    ]


def patch_stage(
    model: LVLM, data: Dataset, evidence: Evidence, folder: Path, pairs: int, seed: int, tell: Tell
) -> tuple[dict[str, Any], PatchGrid | None]:
    """Patch what enters each block at spans of the prompt and return a plain summary beside the grid.

    Spans: each row of the picture (the whole picture where its tokens make no square), the question, the last
    token.  The grid is kept in ``folder`` and continued there.
    """
    able = behaving_pairs(data, evidence)
    if len(able) < FEWEST:
        reason = (
            f"{len(able)} of {len(data.pairs())} pairs have their harmful member refused and their harmless one "
            f"answered; at least {FEWEST} are needed"
        )
        return {"done": False, "reason": reason, "pairs": len(able)}, None
    chosen = sorted(random.Random(seed).sample(range(len(able)), min(pairs, len(able))))
    used = [able[i] for i in chosen]

    def progress(done: int, total: int) -> None:
        tell("patching", done, total)

    def grid_over(spans: list[str]) -> PatchGrid:
        return patch_grid(model, used, "resid_pre", spans, direction="both", seed=seed, progress=progress, out=folder)

    try:
        grid = grid_over(["image_rows", "question", "last"])
    except DataError:  # pictures of several sizes, or a token grid that is no square
        grid = grid_over(["image", "question", "last"])
    table = grid.summary(seed=seed)
    best = {}
    for direction in grid.directions:
        here = table[(table["direction"] == direction) & table["survives"]]
        strongest = here.loc[here["effect"].idxmax()] if len(here) else None
        best[direction] = None if strongest is None else {
            "block": int(strongest["block"]),
            "position": str(strongest["position"]),
            "effect": float(strongest["effect"]),
            "low": float(strongest["low"]),
            "high": float(strongest["high"]),
            "p_adjusted": float(strongest["p_adjusted"]),
            "unit": str(strongest["unit"]),
            "beaten": str(strongest["beaten"]),
        }  # fmt: skip
    return {
        "done": True,
        "pairs": len(used),
        "pairs_that_behave": len(able),
        "metric": grid.metric,
        "engine": grid.engine,
        "engine_reason": grid.reason,
        "verification": dict(grid.verification),
        "cells": int(table.shape[0]),
        "cells_surviving": int(table["survives"].sum()),
        "attainable": table.attrs["attainable"],
        "strongest": best,
        "cells_table": table.to_dict(orient="records"),
    }, grid


def picture_effects(
    model: LVLM, data: Dataset, grid: PatchGrid, folder: Path, tell: Tell, most: int = 3
) -> list[tuple[Any, Any, Any, str]]:
    """Denoising of single image tokens on a few pairs: where in the picture the difference sits.

    Returns ``(clean picture, corrupted picture, effect [block, side, side], caption)`` a pair; empty where the
    image tokens of a picture make no square.  Pairs are the ones with the widest gap between their baselines.
    """
    import math

    import numpy as np

    gaps = np.argsort(-np.abs(grid.clean - grid.corrupted))[:most]
    pairs = [Pair(data[grid.pairs[i][0]], data[grid.pairs[i][1]]) for i in gaps]
    if any(len(pair.clean.images) != 1 for pair in pairs):
        return []
    tokens = len(model.encode(pairs[0].clean).layouts[0].images[0])
    side = math.isqrt(tokens)
    if side * side != tokens:
        return []
    fine = patch_grid(
        model,
        pairs,
        "resid_pre",
        "image[0]",
        direction="denoise",
        null=0,
        verify=2,
        progress=lambda done, total: tell("patching single image tokens", done, total),
        out=folder,
    )
    effect = fine.normalized(min_gap=0.0).values[0, 0]  # [block, token, pair]
    found = []
    for at, pair in enumerate(pairs):
        assert pair.clean.image is not None and pair.corrupted.image is not None
        shown = effect[:, :, at].reshape(len(fine.blocks), side, side)
        caption = textwrap.shorten(pair.clean.text, 130, placeholder=" ...")
        found.append((pair.clean.image.load(), pair.corrupted.image.load(), shown, caption))
    return found
