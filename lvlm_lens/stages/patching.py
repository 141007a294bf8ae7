"""Which blocks and positions decide, by patching matched pairs both ways.

The pairs are those whose behaviour differs: the harmful input is refused and its harmless
counterfactual is answered.  Where a model has too few of them (it refuses nothing, or everything),
nothing is patched and the result says so: a grid over pairs that behave alike would explain nothing.
"""

from __future__ import annotations

import random
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..causal import PatchGrid, patch_grid
from ..causal.cells import position_groups
from ..causal.grid_options import GridOptions
from ..causal.nulls import NULLS
from ..causal.patch_grid import GridWork
from ..config import SweepConfig
from ..data import Dataset, Pair
from ..errors import DataError, LensError, context
from ..lens import LVLM
from ..measures.evidence import Evidence
from ..progress import stage
from ..storage.plain import plain
from .drawing_causal import draw_grid
from .stage import Plan, Run, Stage
from .summary import Block, Line
from .work import Work

FEWEST = 8
"""Pairs below which nothing is patched: an interval over fewer says nothing."""

Tell = Callable[[str, int, int], None]


LONGEST_TEMPLATE = 8
"""Most tokens of the chat template after the question that are patched one by one."""


def behaving_pairs(data: Dataset, evidence: Evidence) -> tuple[list[Pair], str]:
    """Pairs of one kind whose harmful member is refused and whose harmless one is answered, and how many of which.

    Pairs that differ in their picture where there are enough of them, else pairs that differ in their words.
    """
    refused = {sample.id: bool(odds > 0) for sample, odds in zip(evidence.samples, evidence.log_odds, strict=True)}
    said: list[str] = []
    found: dict[str, list[Pair]] = {}
    for swap, differ in (("image", "picture"), ("text", "words")):
        pairs = [p for p in data.pairs() if p.swap == swap and p.clean.id in refused and p.corrupted.id in refused]
        found[swap] = [p for p in pairs if refused[p.clean.id] and not refused[p.corrupted.id]]
        harmful, harmless = sum(refused[p.clean.id] for p in pairs), sum(refused[p.corrupted.id] for p in pairs)
        if pairs:
            said.append(
                f"{len(found[swap])} of {len(pairs)} pairs that differ in their {differ} have their harmful member "
                f"refused and their harmless one answered (refused: {harmful} harmful, {harmless} harmless members)"
            )
    kind = "image" if len(found["image"]) >= FEWEST or len(found["image"]) >= len(found["text"]) else "text"
    return found[kind], "; ".join(said) or "the data set has no matched pairs (column counterfactual)"


def drawn_pairs(able: Sequence[Pair], most: int, seed: int) -> list[Pair]:
    """At most ``most`` of the pairs, drawn with ``seed``: the first ones would be of the first types of a data set."""
    drawn = random.Random(seed).sample(range(len(able)), min(most, len(able)))
    return [able[i] for i in sorted(drawn)]


def spans_of(model: LVLM, pairs: Sequence[Pair]) -> list[list[str]]:
    """Where pairs are patched, the finest choice first: the later ones are for prompts that do not allow it.

    Pairs that differ in their picture have prompts of equal length: each row of the picture (the whole picture where
    its tokens make no square), the question, the last token.  Pairs that differ in their words need not: they are
    patched where positions correspond, which is the mean over the question, each token of the chat template after it,
    and the last token.  Everything before the words is the same in both prompts, so there is nothing to patch.
    """
    if all(pair.swap == "image" for pair in pairs):
        return [["image_rows", "question", "last"], ["image", "question", "last"]]
    after = min(
        sum(column > max(layout.question) for column in layout.part("template"))
        for pair in pairs
        for sample in (pair.clean, pair.corrupted)
        for layout in model.encoder([sample]).layouts
    )
    template = [f"template[-{k}]" for k in range(min(after, LONGEST_TEMPLATE), 1, -1)]
    return [["mean(question)", *template, "last"]]


RESUMED = 1.3
"""A resumed token for one of a plain forward: prefixes are gathered, masks written out (measured on mini: 1.2)."""


def patching_work(model: LVLM, pair: Pair, pairs: int, spans: Sequence[str]) -> tuple[Work, Work]:
    """Cells of both directions with their nulls; and the single image tokens of three pairs, run for a figure.

    A cell before block ``b`` at a position runs the later blocks on the positions from there on: half the blocks on
    average, and the share of the prompt that is left.
    """
    layouts = model.encoder([pair.clean]).layouts
    layout = layouts[0]
    length = len(layout.attended)

    def share(column: int) -> float:
        return max(sum(c >= column for c in layout.attended), 1) / length

    groups = position_groups(list(spans), "span", layouts)
    suffixes = [share(min(group.columns(layout))) for group in groups]
    cells = 2 * (1 + len(NULLS)) * pairs * model.n_blocks * sum(suffixes) / 2 * RESUMED
    tokens = layout.images[0] if len(layout.images) == 1 and pair.swap == "image" else ()
    single = min(pairs, 3) * model.n_blocks * sum(share(column) for column in tokens) / 2 * RESUMED
    note = f"at most: if {pairs} pairs behave as their labels say"
    return Work(rows=2 * pairs + cells, note=note), Work(rows=single, figures=4)


@dataclass(frozen=True)
class SweepGrid:
    """The grid of a sweep: its work, ``None`` where too few pairs behave; how many do; how all of them behave."""

    work: GridWork | None
    able: int
    counts: str
    pairs: Sequence[Pair] = ()


def sweep_grid(model: LVLM, data: Dataset, evidence: Evidence, folder: Path, pairs: int, seed: int) -> SweepGrid:
    """What a sweep patches: what enters each block, at spans of the prompt (:func:`spans_of`), of drawn pairs."""
    able, counts = behaving_pairs(data, evidence)
    if len(able) < FEWEST:
        return SweepGrid(None, len(able), counts)
    used = drawn_pairs(able, pairs, seed)
    choices = spans_of(model, used)
    for spans in choices:
        try:
            work = GridWork(model, used, GridOptions("resid_pre", spans, seed=seed), folder)
        except DataError:  # pictures of several sizes, or a token grid that is no square
            if spans == choices[-1]:
                raise
        else:
            break
    return SweepGrid(work, len(able), counts, used)


def patch_stage(
    model: LVLM, data: Dataset, evidence: Evidence, folder: Path, pairs: int, seed: int, progress: Tell
) -> tuple[dict[str, Any], PatchGrid | None]:
    """Patch what :func:`sweep_grid` chooses: a plain summary beside the grid, which is kept in ``folder``."""
    found = sweep_grid(model, data, evidence, folder, pairs, seed)
    if found.work is None:
        reason = f"{found.counts}; at least {FEWEST} are needed"
        return {"done": False, "reason": reason, "pairs": found.able}, None
    used = found.pairs
    with stage("patching"):
        grid = found.work.run_all()
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
        "pairs_that_behave": found.able,
        "pairs_differ_in": used[0].swap,
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
    model: LVLM, data: Dataset, grid: PatchGrid, folder: Path, most: int = 3
) -> list[tuple[Any, Any, Any, str]]:
    """Denoising of single image tokens on a few pairs: where in the picture the difference sits.

    Returns ``(clean picture, corrupted picture, effect [block, side, side], caption)`` a pair; empty where the
    image tokens of a picture make no square.  Pairs are the ones with the widest gap between their baselines.
    """
    import math

    import numpy as np

    gaps = np.argsort(-np.abs(grid.clean - grid.corrupted))[:most]
    pairs = [Pair(data[grid.pairs[i][0]], data[grid.pairs[i][1]]) for i in gaps]
    if any(len(pair.clean.images) != 1 or pair.clean.text != pair.corrupted.text for pair in pairs):
        return []
    tokens = len(model.encode(pairs[0].clean).layouts[0].images[0])
    side = math.isqrt(tokens)
    if side * side != tokens:
        return []
    with stage("patching image tokens"):
        fine = patch_grid(model, pairs, "resid_pre", "image[0]", direction="denoise", null=0, verify=2, out=folder)
    effect = fine.normalized(min_gap=0.0).values[0, 0]  # [block, token, pair]
    found = []
    for at, pair in enumerate(pairs):
        assert pair.clean.image is not None and pair.corrupted.image is not None
        shown = effect[:, :, at].reshape(len(fine.blocks), side, side)
        caption = textwrap.shorten(pair.clean.text, 130, placeholder=" ...")
        found.append((pair.clean.image.load(), pair.corrupted.image.load(), shown, caption))
    return found


class Patching(Stage):
    """Patch grids of the pairs that behave; continued at the pair where it was stopped."""

    name = "patch"
    parts = ("causal",)

    def asked(self, settings: SweepConfig) -> bool:
        """Where pairs were asked for."""
        return settings.pairs > 0

    def cost(self, plan: Plan) -> Mapping[str, Work]:
        """Cells of both directions with their nulls."""
        if not plan.pairs:
            return {}
        work = None
        choices = spans_of(plan.model, plan.pairs[:1])
        for spans in [*choices, ["last"]]:
            try:
                work = patching_work(plan.model, plan.pairs[0], min(plan.settings.pairs, len(plan.pairs)), spans)
                break
            except LensError:  # a token grid that is no square, say
                continue
        return {} if work is None else {"patching": work[0], "figures": work[1]}

    def run(self, run: Run) -> Mapping[str, Any]:
        """Patch, or continue."""
        evidence = run.found["reading"].evidence
        with context("patching"):
            causal, grid = patch_stage(
                run.model, run.data, evidence, run.folder / "patch", run.settings.pairs, run.seed, run.progress
            )
        run.found[self.name] = grid
        return {"causal": plain(causal)}

    def figures(self, run: Run) -> list[dict[str, str]]:
        """The grid, and single image tokens over three pictures."""
        grid = run.found.get(self.name)
        if grid is None:
            return []
        pictures = picture_effects(run.model, run.data, grid, run.folder / "patch_tokens")
        return draw_grid(run.folder, run.model.n_blocks, grid, pictures)

    def summary(self, record: Mapping[str, Any]) -> list[Block]:
        """The strongest cell of each direction."""
        causal = record["causal"]
        if not causal["done"]:
            return [Line(f"Patching: not done: {causal['reason']}")]
        lines: list[Block] = []
        for direction, cell in causal["strongest"].items():
            what = "nothing survives" if cell is None else (
                f"{cell['position']} into block {cell['block']} carries {cell['effect']:.2f} "
                f"[{cell['low']:.2f}, {cell['high']:.2f}] of the difference"
            )  # fmt: skip
            lines.append(Line(f"Patching, {direction}: {what} ({causal['pairs']} pairs, engine {causal['engine']})"))
        return lines
