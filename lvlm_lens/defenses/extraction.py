"""Features of first-token passes, plain and with projections: what SASA and other detectors probe.

One recorded forward per batch serves every cell: pass 2 of SASA begins at the block that is edited
(:mod:`lvlm_lens.interventions.rerun`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from ..data import Sample
from ..errors import DataError, UsageError
from ..interventions.recording import Recording, record
from ..interventions.rerun import Reruns
from ..lens import LVLM
from ..models.batching import batches, in_batches
from ..models.encode import Encoded
from ..storage.pieces import Piece, Pieces
from ..tolerance import BARRED
from .projection import Cell, Edit, edit
from .wide_table import check_room, wide_table

Features = Literal["logits", "last_resid", "fused_resid"]
FEATURES = ("logits", "last_resid", "fused_resid")


@dataclass
class Extracted:
    """Features of plain and edited passes, row by row as the samples were given.

    Attributes:
        plain: ``[sample, feature]`` float32 without any projection (``last_resid`` where the feature is
            ``fused_resid``, which ``plain_resid`` holds by block).
        plain_resid: by block ``[sample, d_model]``; plain_logits: ``[sample, vocab]``.
        cells: by cell ``[sample, feature]`` float32.
        tokens, negative: by cell, tokens edited and tokens whose ``a_t`` was negative.
        check_error: largest difference of logits of a resumed pass from a whole forward (checked on one batch), as a
            share of the largest logit.
        engine: ``"resumed"``, or ``"full forwards: why"``.
    """

    plain: np.ndarray
    plain_resid: dict[int, np.ndarray]
    plain_logits: np.ndarray
    cells: dict[Cell, np.ndarray]
    tokens: dict[Cell, int]
    negative: dict[Cell, int]
    check_error: float = 0.0
    engine: str = "resumed"


def extract(
    model: LVLM,
    samples: Sequence[Sample],
    cells: Sequence[Cell],
    features: Features = "logits",
    batch_size: int = 32,
    resid_blocks: Sequence[int] = (),
    engine: str | None = None,
    out: Path | None = None,
) -> Extracted:
    """Run the first pass once a batch and every cell's second pass from it.

    Args:
        model: the model.
        samples: any number; picture and word-only rows run apart.
        cells: the edits; cells with ``fused`` = ``safety`` run like the others.
        features: what is kept of each pass: first-token ``logits``, the residual after the last block
            (``last_resid``), or after the cell's fused block (``fused_resid``), all at the last prompt token.
        batch_size: rows per forward.
        resid_blocks: blocks whose plain residual at the last token is kept as well.
        engine: what an earlier check on this model found (:attr:`Extracted.engine`); without it the first
            batch is checked against a whole forward.
        out: folder where each batch is kept as soon as it is done; batches found there are not run again.

    Raises:
        UsageError: unknown feature, or tables of features for which the disk has no room.
    """
    if features not in FEATURES:
        raise UsageError(f"features is {features!r}; it is one of {', '.join(FEATURES)}")
    if not len(samples):
        raise DataError("no samples were given")
    anatomy = model.anatomy
    width = anatomy.vocab_size if features == "logits" else anatomy.d_model
    check_room(len(samples), width, len(cells) + 1)
    end = anatomy.n_blocks - 1
    plain_blocks = sorted({*resid_blocks, end, *({c.fused for c in cells} if features == "fused_resid" else ())})
    keep = sorted({block for cell in cells for block in (cell.safety, cell.fused)} | set(plain_blocks))
    rows = {cell: wide_table(len(samples), width) for cell in cells}
    resid: dict[int, list[Any]] = {block: [None] * len(samples) for block in plain_blocks}
    logits = wide_table(len(samples), anatomy.vocab_size)
    made = Extracted(np.empty(0), {}, np.empty(0), {}, dict.fromkeys(cells, 0), dict.fromkeys(cells, 0))
    checked = engine is not None or not cells
    reruns = Reruns(model, None if engine in (None, "resumed") else engine)
    made.engine = engine or made.engine

    asked = f"{model.name} {features} {plain_blocks} {keep} {[str(cell) for cell in cells]}"

    pieces = Pieces(out)

    def passes(batch: list[int]) -> _Passes:
        nonlocal checked
        words = "\0".join([asked, *(f"{samples[i].id}\1{samples[i].text}" for i in batch)])
        name = hashlib.sha256(words.encode()).hexdigest()[:24]
        kept = pieces.get(name)
        if kept is not None:
            found = _Passes.from_piece(kept)
            if not checked:
                made.check_error, made.engine, checked = found.check_error, found.engine, True
                reruns.reason = None if found.engine == "resumed" else found.engine
            return found
        encoded = model.encode([samples[i] for i in batch])
        rec = record(model, encoded, keys=False, after=keep)
        assert rec.logits is not None
        if not checked:
            cell = min(cells, key=lambda c: c.safety)  # the longest way to resume
            reruns.check(rec, encoded, cell.safety, edit(rec, encoded, cell).hidden)
            made.check_error, checked = reruns.error or 0.0, True
            made.engine = "resumed" if reruns.reason is None else f"full forwards: {reruns.reason}"
        second = []
        for cell in cells:  # the device holds the logits of one cell at a time
            value, changed = _second(reruns, rec, encoded, cell, features)
            second.append((_numbers(value), changed))
        found = _Passes(
            _numbers(usable(rec.logits)),
            [_numbers(rec.at_last(rec.left[block]).float()) for block in plain_blocks],
            [value for value, _ in second],
            [changed.tokens for _, changed in second],
            [changed.negative for _, changed in second],
            made.check_error,
            made.engine,
        )
        pieces.put(name, *found.to_arrays())
        return found

    pairs = any(cell.control == "other_sample" for cell in cells)
    prepared = donor_batches(samples, batch_size, pairs)
    for batch, found in in_batches(samples, batch_size, passes, prepared, 2 if pairs else 1):
        _scatter(logits, batch, found.logits)
        for block, values in zip(plain_blocks, found.plain, strict=True):
            _scatter(resid[block], batch, values)
        for number, cell in enumerate(cells):
            made.tokens[cell] += found.tokens[number]
            made.negative[cell] += found.negative[number]
            _scatter(rows[cell], batch, found.cells[number])
    made.plain_logits = logits
    made.plain_resid = {block: np.stack(values) for block, values in resid.items()}
    made.plain = made.plain_logits if features == "logits" else made.plain_resid[end]
    made.cells = rows
    return made


def _second(
    reruns: Reruns, rec: Recording, encoded: Encoded, cell: Cell, features: Features
) -> tuple[torch.Tensor, Edit]:
    changed = edit(rec, encoded, cell)
    if features == "fused_resid" and cell.fused == cell.safety:
        return rec.at_last(changed.hidden).float(), changed
    keep = (cell.fused,) if features == "fused_resid" else ()
    second = reruns.run(rec, encoded, cell.safety, changed.hidden, keep=keep)
    if features == "fused_resid":
        return second.states[cell.fused], changed
    return (usable(second.logits) if features == "logits" else second.states[reruns.model.n_blocks - 1]), changed


def usable(logits: torch.Tensor) -> torch.Tensor:
    """Logits as features: barred tokens, whose logit is the dtype's minimum, count 0."""
    return logits.masked_fill(logits < -BARRED, 0.0)


class _Passes(NamedTuple):
    """What one batch gives: plain logits, plain residuals by block, features, tokens and negative ``a_t`` by cell."""

    logits: np.ndarray
    plain: list[np.ndarray]
    cells: list[np.ndarray]
    tokens: list[int]
    negative: list[int]
    check_error: float
    engine: str

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays, and the rest as plain facts."""
        arrays = {f"{name}{n}": x for name in ("plain", "cells") for n, x in enumerate(getattr(self, name))}
        counts = {name: [int(n) for n in getattr(self, name)] for name in ("tokens", "negative")}
        return {"logits": self.logits, **arrays}, {**counts, "check_error": self.check_error, "engine": self.engine}

    @classmethod
    def from_piece(cls, piece: Piece) -> _Passes:
        """Inverse of :meth:`to_arrays`."""
        arrays, facts = piece
        count = {name: sum(key.startswith(name) for key in arrays) for name in ("plain", "cells")}
        plain, cells = ([arrays[f"{name}{n}"] for n in range(count[name])] for name in count)
        told = (facts[name] for name in ("tokens", "negative", "check_error", "engine"))
        return cls(arrays["logits"], plain, cells, *told)


def _numbers(values: torch.Tensor) -> np.ndarray:
    return values.cpu().numpy()


def _scatter(into: Any, batch: Sequence[int], values: np.ndarray) -> None:
    for row, number in enumerate(batch):
        into[number] = values[row]


def donor_batches(samples: Sequence[Sample], size: int, pairs: bool) -> Iterator[list[int]]:
    """Batches; where donors are needed a last row alone joins the batch before it of its own kind."""
    made = list(batches(samples, size))
    if pairs:
        for at in range(len(made) - 1, 0, -1):
            same = len(samples[made[at][0]].images) == len(samples[made[at - 1][0]].images)
            if len(made[at]) == 1 and same:
                made[at - 1] += made.pop(at)
    yield from made
