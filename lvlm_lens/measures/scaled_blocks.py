"""Refusal gained on harmless prompts when blocks are scaled up (Safety Layers)."""

from __future__ import annotations

import numpy as np

from ..causal.scaled_blocks import sharpen_range
from ..errors import DataError
from .angular_gap import AngularGap
from .editing import ITEMS, effect_curve, progress_of
from .spec import Measured, MeasureSpec
from .study import Study


def _compute(study: Study) -> Measured:
    gap = AngularGap(replicates=100, permutations=study.permutations, random_state=study.seed)
    first = gap.fit(study.evidence, study.labels, study.groups).range_
    if first is None:
        raise DataError("the angular gap shows no range to begin from")
    harmless = np.flatnonzero(study.labels == 0)
    looks = np.array([s.label_image == "unsafe" or s.label_text == "unsafe" for s in study.samples])
    rows = study.some(harmless[looks[harmless]], ITEMS)
    if len(rows) < ITEMS:  # too few that look harmful: other harmless ones beside them
        rows = np.concatenate([rows, study.some(harmless[~looks[harmless]], ITEMS - len(rows))])
    found = sharpen_range(
        study.model, [study.samples[row] for row in rows], (first[0], first[1] + 1), batch_size=study.batch_size,
        progress=progress_of(study, "scaling blocks"),
    )  # fmt: skip
    moved = np.nan_to_num(found.moved[:, list(study.evidence.blocks)], nan=0.0)  # before the start nothing is scaled
    curve = effect_curve(study, moved, study.groups[rows], "gained refusal log-odds (nats)")
    tables = {
        "first": [first[0], first[1]], "range": [found.start, found.stop - 1], "refusals": found.refusals,
        "base_refusals": found.base, "items": found.n, "tried": list(found.tried), "factor": 1.15,
    }  # fmt: skip
    return Measured(curve, tables=tables)


SPEC = MeasureSpec(
    "scaled_blocks", "perception", "edits", "Safety Layers, arXiv 2408.17003 [code]; first-token count [own]",
    "refusal gained on harmless prompts when the angular gap's range is scaled up to a block (not counted: "
    "it grows with the number of blocks scaled)", _compute, votes=False,
    rows=lambda size: min(ITEMS, size.items) * 2 * size.blocks,
    untested="constructed models write for harmless items the opposite of danger; scaling strengthens that as well, so "
    "no refusal of harmless items is planted",
)  # fmt: skip
