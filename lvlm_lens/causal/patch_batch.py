"""One batch of pairs of a patch grid: both prompts recorded, cells made and resumed, some of them compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ..data import Pair
from ..errors import DataError, NumericalError
from ..interventions.cell import Cell, full
from ..interventions.engine import resume
from ..interventions.inherit import Inheritance
from ..interventions.reach import UNRESUMABLE, obstacle
from ..interventions.recording import Recording, record
from ..interventions.verification import joined
from ..interventions.verification import verify as compare_cells
from ..lens import LVLM
from ..models.encode import Encoded
from ..progress import step
from .cells import Group, SiteAxis, build_cell
from .metrics import Metric, numbers
from .nulls import donors_of, pool_of

_LOOKS_BACK = {"bidirectional_image", "prefix"}


@dataclass
class GridPlan:
    """What every batch of one grid has in common."""

    model: LVLM
    directions: tuple[str, ...]
    sites: list[SiteAxis]
    groups: list[Group]
    window: int
    metric: Metric
    kinds: tuple[str, ...]  # of the null draws
    seed: int
    max_tokens: int
    exact: str
    reason: str = "asked for"  # why ``exact`` is ``full``

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Length of each axis of the grid."""
        return len(self.directions), len(self.sites), self.model.n_blocks, len(self.groups)


@dataclass
class GridBatch:
    """Results of one batch of pairs."""

    values: np.ndarray  # [direction, site, block, position, n]
    null: np.ndarray | None  # [draw, direction, site, block, position, n]
    clean: np.ndarray  # [n]
    corrupted: np.ndarray  # [n]
    engine: str
    reason: str
    verification: dict[str, Any]


def run_batch(plan: GridPlan, pairs: Sequence[Pair], which: Sequence[int], verify: int) -> GridBatch:
    """Results of some pairs; ``which`` are their numbers, by which the null draws its directions."""
    model = plan.model
    encoded = {"clean": model.encode([p.clean for p in pairs]), "corrupted": model.encode([p.corrupted for p in pairs])}
    places = {side: [[g.columns(x) for g in plan.groups] for x in e.layouts] for side, e in encoded.items()}
    _check_places(plan, pairs, encoded, places)
    sites = sorted({axis.at(b) for axis in plan.sites for b in range(model.n_blocks)})
    flow = model.anatomy.family.flow
    resumable = plan.exact == "auto" and not model.anatomy.family.discovered and not flow & set(UNRESUMABLE)
    recordings: dict[str, Recording] = {}
    for side, other in (("clean", "noise"), ("corrupted", "denoise")):
        columns = [sorted({c for own in row for c in own}) or [0] for row in places[side]]
        is_recipient = other in plan.directions
        low = 0 if flow & _LOOKS_BACK else min(row[0] for row in columns)
        means = any(group.mean for group in plan.groups)
        wanted = sites if plan.kinds or means or not is_recipient or len(plan.directions) == 2 else []
        spans = any(len(own) > 1 for row in places[side] for own in row)  # a donor's prefix may stand in for a span
        kept = low if resumable and (is_recipient or spans) else None
        recordings[side] = record(model, encoded[side], wanted, columns, kept)
    reason = _why_full(plan, recordings, resumable)
    baseline = {side: rec.logits for side, rec in recordings.items()}
    for side, logits in baseline.items():
        if logits is None or not bool(torch.isfinite(logits).all()):
            raise NumericalError(f"the {side} prompts give NaN or infinity; run the model in float32 or bfloat16")
    plan.metric.prepare(baseline["clean"], baseline["corrupted"])  # type: ignore[arg-type]
    every = list(range(len(pairs)))
    shape = (1 + len(plan.kinds), *plan.shape, len(pairs))
    values = np.full(shape, np.nan)
    checked: dict[str, Any] = {"cells": 0, "max_abs_diff": None}
    jobs = []
    for direction in plan.directions:
        donor, recipient = ("clean", "corrupted") if direction == "denoise" else ("corrupted", "clean")
        where, cells = _cells(plan, pairs, places, encoded, donor, recipient, recordings, which, reason is None)
        jobs.append((recipient, where, cells))
        if reason is None and verify:
            share = min(-(-verify // len(plan.directions)), verify - checked["cells"])
            rec = recordings[recipient]
            measure = partial(numbers, plan.metric)
            found = compare_cells(model, rec, encoded[recipient], cells, share, measure, plan.max_tokens, plan.seed)
            checked = checked if found is None else joined(checked, found.to_dict())
    if checked["cells"] and checked["wrong"]:
        reason = f"a resumed cell differed by {checked['max_abs_diff']:.2e} from a plain forward"
    ran, total = 0, sum(len(cells) for _, _, cells in jobs)
    for number, (recipient, where, cells) in enumerate(jobs):
        if reason is None:
            runs = resume(model, recordings[recipient], cells, plan.max_tokens)
        else:
            runs = _in_full(model, encoded[recipient], where, cells)
        for some, logits in runs:
            measured = numbers(plan.metric, logits, [cells[n].row for n in some])
            for n, value in zip(some, measured, strict=True):
                draw, site, block, group, row = where[n]
                values[draw, number, site, block, group, row] = value
            ran += len(some)
            step(ran, total)
    return GridBatch(
        values[0],
        values[1:] if plan.kinds else None,
        numbers(plan.metric, baseline["clean"], every),  # type: ignore[arg-type]
        numbers(plan.metric, baseline["corrupted"], every),  # type: ignore[arg-type]
        "resumed" if reason is None else "full",
        reason or "causal blocks, resumed above the patch",
        checked,
    )


def _why_full(plan: GridPlan, recordings: Mapping[str, Recording], resumable: bool) -> str | None:
    """Why plain forwards are needed, or ``None``."""
    if plan.exact == "full":
        return plan.reason
    if plan.model.anatomy.family.discovered:
        return "the family has no row in the table of families, so how its blocks read is not known"
    if not resumable:
        return next(why for flow, why in UNRESUMABLE.items() if flow in plan.model.anatomy.family.flow)
    for rec in recordings.values():
        if rec.calls and (why := obstacle(plan.model, rec)):
            return why
    return None


def _check_places(plan: GridPlan, pairs: Sequence[Pair], encoded: Mapping[str, Encoded], places: Any) -> None:
    whole = [axis.name for axis in plan.sites if axis.name == "pattern"]
    for row, pair in enumerate(pairs):
        for g, group in enumerate(plan.groups):
            clean, corrupted = places["clean"][row][g], places["corrupted"][row][g]
            if clean and corrupted and len(clean) != len(corrupted) and not group.mean:
                raise DataError(
                    f"pair {pair.clean.id!r}, {pair.corrupted.id!r}: {group.name!r} selects {len(clean)} and "
                    f"{len(corrupted)} positions; patching needs prompts of equal length there, or the span's mean: "
                    f"mean({group.name})"
                )
        if whole:
            ends = [[e.layouts[row].attended[0], e.layouts[row].last] for e in encoded.values()]
            if ends[0] != ends[1]:
                raise DataError(
                    f"pair {pair.clean.id!r}, {pair.corrupted.id!r}: patterns can be patched only between prompts "
                    "of equal length"
                )


def _in_full(
    model: LVLM, encoded: Encoded, where: Sequence[tuple[int, ...]], cells: Sequence[Cell]
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Cells by plain forwards, those of one place in the grid but different rows in one forward."""
    order = sorted(range(len(cells)), key=lambda n: where[n])
    for start in range(0, len(order), 8 * len(encoded)):
        some = order[start : start + 8 * len(encoded)]
        yield some, full(model, encoded, [cells[n] for n in some])


def _cells(
    plan: GridPlan,
    pairs: Sequence[Pair],
    places: Any,
    encoded: Mapping[str, Encoded],
    donor: str,
    recipient: str,
    recordings: Mapping[str, Recording],
    which: Sequence[int],
    resumed: bool,
) -> tuple[list[tuple[int, int, int, int, int]], list[Cell]]:
    """Cells of one direction, each with its place (draw, site, block, position, row of the batch) in the grid."""
    model = plan.model
    where, cells = [], []
    inheritance = Inheritance(recordings[donor], recordings[recipient]) if resumed else None
    own_label = recordings[recipient]
    ends = [(layout.attended[0], layout.last) for layout in encoded[recipient].layouts]
    names = [pair.group or pair.clean.id for pair in pairs]
    means = [group.mean for group in plan.groups]
    pools = [pool_of(places[recipient], g, plan.seed) for g in range(len(plan.groups))]
    for row in range(len(places[donor])):
        others = [
            donors_of(places[recipient], names, row, hash((plan.seed, d, which[row])), means) for d in _draws(plan)
        ]
        for g in range(len(plan.groups)):
            columns, source = places[recipient][row][g], places[donor][row][g]
            if not columns or not source:
                continue
            for s, axis in enumerate(plan.sites):
                blocks = range(model.n_blocks)
                if axis.name == "image_features":
                    if not set(columns) <= set(encoded[recipient].layouts[row].part("image")):
                        continue
                    blocks = range(1)
                for block in blocks:
                    span = range(block, min(block + plan.window, model.n_blocks))
                    mean_in = own_label if plan.groups[g].mean else None
                    build = partial(build_cell, axis, span, row, columns, mean_in=mean_in)
                    cells.append(build(recordings[donor], source, None, 0, inheritance))
                    where.append((0, s, block, g, row))
                    for draw, kind in zip(_draws(plan), plan.kinds, strict=True):
                        seed = hash((plan.seed, draw, s, block, g, which[row])) % 2**31
                        if kind == "same_label":
                            other = others[draw - 1][g]
                            if other is None or (axis.name == "pattern" and ends[other] != ends[row]):
                                continue
                            source_of = places[recipient][other][g]
                            made = build(own_label, source_of, donor_row=other)
                        elif kind == "covariance" and len(pools[g]) < 2:
                            continue
                        else:
                            pool = pools[g] if kind == "covariance" else ()
                            made = build(recordings[donor], source, own_label, seed, pool=pool)
                        cells.append(made)
                        where.append((draw, s, block, g, row))
    return where, cells


def _draws(plan: GridPlan) -> range:
    """Numbers of the null draws; the patch itself is number 0."""
    return range(1, 1 + len(plan.kinds))
