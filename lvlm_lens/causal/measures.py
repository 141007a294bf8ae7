"""The measures that edit the model's forward, under the same contract as those that only read.

They run many forwards of a few items (:data:`ITEMS`, harmful and harmless in equal number, spread over groups).
None of them has a random-weight twin beside it (that would cost as much again), and this is printed beside their roles.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError
from ..locate.angular_gap import AngularGap
from ..locate.curve import Curve
from ..locate.head_attribution import (
    VARIANTS,
    HeadContrast,
    safety_specific_heads,
    singular_vector_score,
    top_heads,
)
from ..locate.mean_effect import MeanEffect
from ..locate.study import Measured, MeasureSpec, Study
from .head_scan import scan_heads
from .knockout import FLOWS, attention_knockout
from .refusal_direction import after_instruction, select_refusal_direction
from .scaled_blocks import sharpen_range

ITEMS = 32
"""Items that the forwards of a measure run on."""


def _halves(study: Study, among: np.ndarray | None = None, count: int = ITEMS) -> np.ndarray:
    """Rows: ``count`` items, half of them harmful; ``among`` is a bool mask of the rows allowed."""
    allowed = np.ones(len(study.labels), dtype=bool) if among is None else among
    parts = [study.some(np.flatnonzero(allowed & (study.labels == kind)), count // 2) for kind in (1, 0)]
    if min(map(len, parts)) < 4:
        counts = f"{len(parts[0])} harmful and {len(parts[1])} harmless items"
        raise DataError(f"{counts} that can be used; at least 4 of each are needed")
    return np.concatenate(parts)


def _effect(study: Study, values: np.ndarray, groups: np.ndarray, unit: str) -> Curve:
    """Curve of per-sample effects ``[sample, block]`` (block by block of the study)."""
    return MeanEffect(unit, **study.draws).fit(values[:, :, None], None, groups).curve_


def _progress(study: Study, name: str) -> Any:
    return lambda done, total: study.tell(name, done, total)


def _head_attribution(study: Study) -> Measured:
    rows = _halves(study)
    samples, blocks = [study.samples[row] for row in rows], study.evidence.blocks
    scan = scan_heads(study.model, samples, blocks, study.batch_size, _progress(study, "switching heads off"))
    contrast = HeadContrast(**study.draws).fit(scan.kl, study.labels[rows], study.groups[rows])
    harmful = study.labels[rows] == 1
    means = {kind: scan.kl[mask].mean(0) for kind, mask in (("harmful", harmful), ("harmless", ~harmful))}
    k = min(10, means["harmful"].size)
    scores = {
        variant: [
            [singular_vector_score(scan.states, other, variant, min(5, len(rows) - 1)) for other in block]
            for block in scan.ablated
        ]
        for variant in VARIANTS
    }
    tables = {
        "blocks": list(blocks), "items": len(rows), "kl_harmful": means["harmful"].tolist(),
        "kl_harmless": means["harmless"].tolist(), "contrast": contrast.contrast_.tolist(),
        "singular_vector": scores, "top": [[blocks[b], h] for b, h in top_heads(contrast.contrast_, k)],
        "safety_specific": [[blocks[b], h] for b, h in safety_specific_heads(means["harmful"], means["harmless"], k)],
    }  # fmt: skip
    return Measured(contrast.curve_, tables=tables)


def _knockout_flow(study: Study) -> Measured:
    right = study.refused == (study.labels == 1)
    flows = FLOWS if study.pictures else FLOWS[2:]
    shown = np.array([bool(sample.images) == study.pictures for sample in study.samples])
    rows = _halves(study, right & shown)
    samples, blocks, depth = [study.samples[row] for row in rows], study.evidence.blocks, study.model.n_blocks
    width = max(1, round(9 * depth / 32))
    effects = attention_knockout(
        study.model, samples, flows, width, None, study.batch_size, _progress(study, "blocking attention"), blocks
    )
    dropped = -effects.relative.reshape(len(flows), len(blocks), len(rows))  # [flow, block, sample]
    curves = {
        f"flow_{source}_to_{target}": _effect(
            study, dropped[at].T, study.groups[rows], "relative drop of the answer's probability"
        )
        for at, (source, target) in enumerate(flows)
    }
    main = next(iter(curves))
    tables = {"width": width, "items": len(rows), "flows": [list(flow) for flow in flows], "main": main}
    first = curves.pop(main)
    return Measured(first, curves, tables)


def _refusal_direction(study: Study) -> Measured:
    names = np.random.default_rng(study.seed).permutation(np.unique(study.groups))
    in_training = np.isin(study.groups, names[: len(names) // 2])
    parts = []
    for mask, count in ((in_training, 256), (~in_training, ITEMS)):
        rows = _halves(study, mask, count)
        parts.append([rows[study.labels[rows] == kind] for kind in (1, 0)])
    data = [tuple([study.samples[row] for row in rows] for rows in part) for part in parts]
    found = select_refusal_direction(
        study.model, data[0], data[1],  # type: ignore[arg-type]
        min(3, after_instruction(study.model, data[0][0][0])), batch_size=study.batch_size, seed=study.seed,
        progress=_progress(study, "ablating directions"),
    )  # fmt: skip
    # resid_pre of block b + 1 is what block b wrote: the study counts blocks by what they write
    values = found.effects[:, [block + 1 for block in study.evidence.blocks]]
    groups = study.groups[parts[1][0]]
    curve = _effect(study, values, groups, "drop of refusal log-odds (nats)")
    embedding = _effect(study, found.effects[:, :1], groups, "nats")
    curve = curve.with_baseline("input_embedding", *(float(getattr(embedding, k)[0]) for k in ("value", "low", "high")))
    drawn = found.random.mean(0)
    curve = curve.with_baseline("random_direction", float(drawn.mean()), float(drawn.min()), float(drawn.max()))
    tables = {
        "chosen": found.chosen, "candidates": list(found.candidates), "base_harmful": found.base_harmful,
        "base_harmless": found.base_harmless, "counting": "source_block b: resid_pre of b, the output of b - 1",
        "trained_on": [len(part) for part in parts[0]], "validated_on": [len(part) for part in parts[1]],
    }  # fmt: skip
    return Measured(curve, tables=tables)


def _scaled_blocks(study: Study) -> Measured:
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
        progress=_progress(study, "scaling blocks"),
    )  # fmt: skip
    moved = np.nan_to_num(found.moved[:, list(study.evidence.blocks)], nan=0.0)  # before the start nothing is scaled
    curve = _effect(study, moved, study.groups[rows], "gained refusal log-odds (nats)")
    tables = {
        "first": [first[0], first[1]], "range": [found.start, found.stop - 1], "refusals": found.refusals,
        "base_refusals": found.base, "items": found.n, "tried": list(found.tried), "factor": 1.15,
    }  # fmt: skip
    return Measured(curve, tables=tables)


MEASURES: tuple[MeasureSpec, ...] = (
    MeasureSpec("refusal_direction", "perception", "edits",
                "arXiv 2406.11717 [code]; effect by block and its null [own]",
                "refusal lost when the block's mean-difference direction is ablated; its choice by the "
                "published rule in the table", _refusal_direction, expected=("input_embedding", "random_twin")),
    MeasureSpec("head_attribution", "perception", "edits", f"{HeadContrast.source}; SASA's singular-vector score [3P]",
                "Ships' KL of one head switched off, harmful minus harmless (not counted: the largest head of a block, "
                "not its residual)", _head_attribution, votes=False),
    MeasureSpec("scaled_blocks", "perception", "edits",
                "Safety Layers, arXiv 2408.17003 [code]; first-token count [own]",
                "refusal gained on harmless prompts when the angular gap's range is scaled up to a block (not counted: "
                "it grows with the number of blocks scaled)", _scaled_blocks, votes=False),
    MeasureSpec("knockout_flow", "semantics", "edits", "arXiv 2411.18620 [code]; window in proportion to depth [own]",
                "answer lost when attention from picture to question is blocked around a block (beside it picture to "
                "last, question to last; not counted: it marks where information moves)", _knockout_flow, votes=False),
)  # fmt: skip
"""Measures that edit, in the order of tables."""
