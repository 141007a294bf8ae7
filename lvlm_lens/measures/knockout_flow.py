"""Which flows of attention carry the answer: it is lost where a flow is blocked in a window around a block."""

from __future__ import annotations

import numpy as np

from ..causal.knockout import FLOWS, attention_knockout
from .editing import ITEMS, effect_curve, halves, progress_of
from .spec import Measured, MeasureSpec
from .study import Study


def _compute(study: Study) -> Measured:
    right = study.refused == (study.labels == 1)
    flows = FLOWS if study.pictures else FLOWS[2:]
    shown = np.array([bool(sample.images) == study.pictures for sample in study.samples])
    rows = halves(study, right & shown)
    samples, blocks, depth = [study.samples[row] for row in rows], study.evidence.blocks, study.model.n_blocks
    width = max(1, round(9 * depth / 32))
    effects = attention_knockout(
        study.model, samples, flows, width, None, study.batch_size, progress_of(study, "blocking attention"), blocks
    )
    dropped = -effects.relative.reshape(len(flows), len(blocks), len(rows))  # [flow, block, sample]
    curves = {
        f"flow_{source}_to_{target}": effect_curve(
            study, dropped[at].T, study.groups[rows], "relative drop of the answer's probability"
        )
        for at, (source, target) in enumerate(flows)
    }
    main = next(iter(curves))
    tables = {"width": width, "items": len(rows), "flows": [list(flow) for flow in flows], "main": main}
    first = curves.pop(main)
    return Measured(first, curves, tables)


SPEC = MeasureSpec(
    "knockout_flow", "semantics", "edits", "arXiv 2411.18620 [code]; window in proportion to depth [own]",
    "answer lost when attention from picture to question is blocked around a block (beside it picture to "
    "last, question to last; not counted: it marks where information moves)", _compute, votes=False,
    rows=lambda size: min(ITEMS, size.items) * (1 + len(FLOWS) * size.blocks),
    untested="in constructed models the picture reaches the last token directly: nothing flows from it to the question",
)  # fmt: skip
