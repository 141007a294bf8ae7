"""SASA: carry a middle block's meaning back to the earlier safety block, and probe what comes out.

Self-Aware Safety Augmentation (arXiv 2507.21637).  From its abstract: informative semantic
representations of intermediate layers are projected onto earlier safety-oriented layers, without
fine-tuning, and a linear probe on the model's internal semantics detects the risk before
generation.  The equation, the probe's features and its settings were read second-hand, in an
independent reimplementation ([3P]); the paper's probe training size, other models and tables are not known.

1. Pass 1, plain: keep H_s and H_f, the residuals after the safety and the fused block, at every position.
2. Pass 2: put the projection (:mod:`.projection`) after block s, run blocks s+1 .. L-1
   (:mod:`lvlm_lens.interventions.rerun`).
3. Probe: logistic regression on the first-token logits of pass 2, C = 1, balanced classes, threshold 0.5.
   Unsafe: a fixed refusal.  Safe: the original model generates, untouched.

Whether the projection helps is only told by the same probe, at the same training size, without it:
``control="no_projection"`` is that reference, and :func:`~lvlm_lens.defenses.sasa_report.sasa_report` sets the two
side by side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from ..activations import Activations, Site, capture
from ..data import Sample
from ..data.groups import groups_of
from ..data.limits import limited_rows
from ..errors import DataError, ModelError, UsageError
from ..interventions.recording import Recording, record
from ..interventions.rerun import Reruns
from ..lens import LVLM
from ..models.batching import batches, in_batches
from ..models.encode import Encoded
from ..stats.auroc import auroc
from ..stats.resampling import group_folds
from ..storage.pieces import Piece, Pieces
from ..tolerance import BARRED
from .base import Detector, labelled
from .probe import LogisticProbe
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
    prepared = _batches(samples, batch_size, pairs)
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


def _batches(samples: Sequence[Sample], size: int, pairs: bool) -> Iterator[list[int]]:
    """Batches; where donors are needed a last row alone joins the batch before it of its own kind."""
    made = list(batches(samples, size))
    if pairs:
        for at in range(len(made) - 1, 0, -1):
            same = len(samples[made[at][0]].images) == len(samples[made[at - 1][0]].images)
            if len(made[at]) == 1 and same:
                made[at - 1] += made.pop(at)
    yield from made


class SASA(Detector):
    """Self-Aware Safety Augmentation as a scikit-learn-style estimator.

    Args:
        roles: located :class:`~lvlm_lens.locate.roles.LayerRoles`; s is the end of the perception range and f
            the end of the semantics range.  Explicit blocks win over roles.  With neither, (s, f) is chosen from
            the grid of ``candidates`` by cross-validation inside the training data.
        safety_block, fused_block: s and f; negative ones count from the end.
        mode, strength, positions, sink, projection, control: see :class:`~lvlm_lens.defenses.projection.Cell`;
            ``control="no_projection"`` is the same probe on the plain pass, the reference of every claim.
        features: ``logits`` (as published), ``last_resid``, ``fused_resid``.
        C: inverse regularisation of the probe (1 in the description read).
        threshold: probability from which the guard refuses (0.5).
        candidates: blocks of the grid; default at most six, evenly spaced.
        selection_size: at most so many training samples (whole groups) choose the blocks.
        folds: of that choice.
        batch_size: rows per forward.
        refusal_file: the fixed refusal, in place of the package's.
        random_state: seed of folds, subsets and the random control.

    Attributes (after ``fit``): ``cell_`` (the blocks and edit used), ``safety_block_``, ``fused_block_``, ``probe_``,
    ``threshold_``, ``n_train_``, ``n_unlabelled_``, ``negative_share_`` (of edited training tokens, ``a_t < 0``),
    ``grid_`` (cross-validated AUROC by (s, f), where blocks were chosen), ``chosen_by_``, ``engine_``,
    ``check_error_``.
    """

    name = "sasa"
    needs = frozenset({"training data"})
    approximation = "equation and probe read second-hand; training size and blocks of the paper are not known"
    source = "arXiv 2507.21637 (abstract; equation from an independent reimplementation)"

    def __init__(
        self,
        roles: Any = None,
        safety_block: int | None = None,
        fused_block: int | None = None,
        mode: str = "replace",
        strength: float = 1.0,
        positions: str = "all",
        sink: bool = True,
        projection: str = "onto_fused",
        control: str = "none",
        features: str = "logits",
        C: float = 1.0,
        threshold: float = 0.5,
        candidates: Sequence[int] | None = None,
        selection_size: int = 200,
        folds: int = 4,
        batch_size: int = 32,
        refusal_file: str | None = None,
        random_state: int = 0,
    ) -> None:
        self.roles = roles
        self.safety_block = safety_block
        self.fused_block = fused_block
        self.mode = mode
        self.strength = strength
        self.positions = positions
        self.sink = sink
        self.projection = projection
        self.control = control
        self.features = features
        self.C = C
        self.threshold = threshold
        self.candidates = candidates
        self.selection_size = selection_size
        self.folds = folds
        self.batch_size = batch_size
        self.refusal_file = refusal_file
        self.random_state = random_state

    # -- fitting -----------------------------------------------------------------------------

    def fit(self, model: LVLM, data: Sequence[Sample]) -> SASA:
        """Choose the blocks where none are given, run both passes over ``data``, fit the probe.

        Raises:
            UsageError: blocks out of range or in the wrong order, only one block given, a bad option.
            DataError: one class only, or too few groups for the folds of the choice.
        """
        self.check_model(model)
        if not self.C > 0:
            raise UsageError(f"C is {self.C}; give a positive number")
        if not 0.0 <= self.threshold <= 1.0:
            raise UsageError(f"threshold is {self.threshold}; it is a probability")
        samples, labels = labelled(data)
        self.n_train_, self.n_unlabelled_ = len(samples), len(data) - len(samples)
        self.cell_ = self._cell(model, samples, labels)
        self.safety_block_, self.fused_block_ = self.cell_.safety, self.cell_.fused
        made = self._extract(model, samples, None)
        self.engine_, self.check_error_ = made.engine, made.check_error
        self.negative_share_ = made.negative.get(self.cell_, 0) / max(made.tokens.get(self.cell_, 0), 1)
        self.probe_ = LogisticProbe(self.C, balanced=True).fit(self._rows(made), labels)
        self.threshold_ = float(self.threshold)
        return self

    def _projects(self) -> bool:
        return self.control != "no_projection"

    def _extract(self, model: LVLM, samples: Sequence[Sample], engine: str | None) -> Extracted:
        cells = [self.cell_] if self._projects() else []
        blocks = () if self._projects() else (self.cell_.fused,)
        return extract(model, samples, cells, self.features, self.batch_size, blocks, engine)  # type: ignore[arg-type]

    def _rows(self, made: Extracted) -> np.ndarray:
        if self._projects():
            return made.cells[self.cell_]
        return made.plain_resid[self.cell_.fused] if self.features == "fused_resid" else made.plain

    def cell(self, safety: int, fused: int) -> Cell:
        """The edit that these options mean at blocks ``safety`` and ``fused``."""
        control: Any = self.control if self._projects() else "none"
        mode: Any = self.mode
        reading: Any = self.projection
        return Cell(
            safety, fused, mode, self.strength, self.positions, self.sink, reading, control, int(self.random_state)
        )

    def _cell(self, model: LVLM, samples: Sequence[Sample], labels: np.ndarray) -> Cell:
        if (self.safety_block is None) != (self.fused_block is None):
            raise UsageError("safety_block and fused_block are given together, or neither")
        if self.safety_block is not None and self.fused_block is not None:
            self.chosen_by_ = "given"
            return self.cell(block_number(model, self.safety_block), block_number(model, self.fused_block))
        if self.roles is not None:
            self.chosen_by_ = "roles"
            return self.cell(*blocks_of_roles(self.roles))
        self.chosen_by_ = "cross-validation on training data"
        return self._choose(model, samples, labels)

    def _choose(self, model: LVLM, samples: Sequence[Sample], labels: np.ndarray) -> Cell:
        blocks = candidate_blocks(model, self.candidates)
        cells = [self.cell(s, f) for s in blocks for f in blocks if s < f]
        rows = limited_rows(samples, self.selection_size, self.random_state)
        few, y = [samples[i] for i in rows], labels[rows]
        groups = groups_of(few)
        fold = group_folds(y, groups, self.folds, self.random_state)
        made = extract(model, few, cells, self.features, self.batch_size)  # type: ignore[arg-type]
        self.grid_ = {(c.safety, c.fused): cross_validated(made.cells[c], y, fold, self.C) for c in cells}
        # of equals the cheapest: the latest safety block leaves the fewest blocks to run again
        best = max(cells, key=lambda c: (round(self.grid_[c.safety, c.fused], 6), c.safety))
        return best

    # -- using -------------------------------------------------------------------------------

    def decision_function(self, model: LVLM, data: Sequence[Sample]) -> np.ndarray:
        """Log-odds of danger, float64 ``[sample]``."""
        self.check_fitted()
        return self.probe_.decision_function(self._rows(self._extract(model, data, self.engine_)))

    def predict_proba(self, model: LVLM, data: Sequence[Sample]) -> np.ndarray:
        """Probabilities ``[sample, 2]``: harmless, harmful."""
        self.check_fitted()
        p = self.probe_.predict_proba(self._rows(self._extract(model, data, self.engine_)))
        return np.stack([1 - p, p], axis=1)

    def score_prompt(self, model: LVLM, samples: Sequence[Sample]) -> np.ndarray:
        """Probability of danger, ``[sample]``."""
        return self.predict_proba(model, samples)[:, 1]

    def score(self, model: LVLM, data: Sequence[Sample]) -> float:
        """AUROC on labelled data (not accuracy: it does not depend on the threshold)."""
        samples, labels = labelled(data)
        return float(auroc(self.decision_function(model, samples), labels))

    def capture(
        self, model: LVLM, data: Sequence[Sample], sites: Any = "resid_post", positions: str = "last", **options: Any
    ) -> Activations:
        """Activations of pass 2, the model as the probe sees it: blocks up to s as ever, later ones changed."""
        self.check_fitted()
        if not self._projects():
            return capture(model, data, sites=sites, positions=positions, **options)
        size = int(options.pop("batch_size", self.batch_size))
        site = Site("resid_post", self.cell_.safety)
        parts: list[Activations] = []
        order: list[int] = []
        pairs = self.cell_.control == "other_sample"

        def edited(batch: list[int]) -> Activations:
            few = [data[i] for i in batch]
            encoded = model.encode(few)
            rec = record(model, encoded, keys=False, after=(self.cell_.safety, self.cell_.fused))
            hidden = edit(rec, encoded, self.cell_).hidden
            # the batch is in the order in which capture puts it, so that rows of the edit are rows of the forward
            edits = [(site, lambda value, where, hidden=hidden: hidden)]
            return capture(model, few, sites, positions, batch_size=len(few), edits=edits, **options)

        for batch, part in in_batches(data, size, edited, _batches(data, size, pairs), 2 if pairs else 1):
            parts.append(part)
            order += batch
        return _joined(parts, order)


def _joined(parts: Sequence[Activations], order: Sequence[int]) -> Activations:
    """Several records of one kind as one, in the order of the data; ragged position axes padded with NaN."""
    width = max(part.valid.shape[1] for part in parts)

    def wide(array: np.ndarray, fill: Any) -> np.ndarray:
        shape = (len(array), width - array.shape[1], *array.shape[2:])
        return np.concatenate([array, np.full(shape, fill, dtype=array.dtype)], axis=1)

    back = np.argsort(np.asarray(order))
    arrays = {
        site: np.concatenate([wide(part.arrays[site], np.nan) for part in parts])[back] for site in parts[0].sites
    }
    valid = np.concatenate([wide(part.valid, False) for part in parts])[back]
    samples = [sample for part in parts for sample in part.samples]
    heads = [part.logits for part in parts if part.logits is not None]
    logits = np.concatenate(heads)[back] if len(heads) == len(parts) else None
    ordered = tuple(samples[i] for i in back)
    return replace(parts[0], samples=ordered, arrays=arrays, valid=valid, logits=logits)


def block_number(model: LVLM, block: int) -> int:
    """A block as a number from 0; raises :class:`UsageError` when the model has no such block."""
    try:
        return model.anatomy.block_index(int(block))
    except ModelError as error:
        raise UsageError(str(error)) from None


def blocks_of_roles(roles: Any) -> tuple[int, int]:
    """(s, f) from located roles: the ends of the ranges of perception and semantics. [own]

    A range ends at the first block with :data:`~lvlm_lens.locate.roles.PLATEAU` (80 %) of the peak's height.

    Raises:
        UsageError: a role was not found, or semantics does not come after perception on this model.
    """
    for role in (roles.perception, roles.semantics):
        if not role.found or role.range is None:
            raise UsageError(
                f"{role.name} was not found on this model ({role.reason}), so SASA's blocks cannot be taken from its "
                "roles; give safety_block and fused_block, or roles=None to choose them on training data"
            )
    safety, fused = roles.perception.range[1], roles.semantics.range[1]
    if safety >= fused:
        raise UsageError(
            f"on this model perception (complete at block {safety}) does not come before semantics (complete at block "
            f"{fused}), so there is no earlier safety block to project onto; give safety_block and fused_block, or "
            "roles=None to choose them on training data"
        )
    return safety, fused


def candidate_blocks(model: LVLM, candidates: Sequence[int] | None = None, most: int = 6) -> list[int]:
    """Blocks of the grid: those given, else at most ``most`` evenly spaced ones.

    Raises:
        UsageError: fewer than two different blocks, or one out of range.
    """
    if candidates is None:
        chosen = np.unique(np.linspace(0, model.n_blocks - 1, min(most, model.n_blocks)).round().astype(int)).tolist()
    else:
        chosen = sorted({block_number(model, block) for block in candidates})
    if len(chosen) < 2:
        raise UsageError(f"candidates {list(chosen)}: SASA needs at least two different blocks, s < f")
    return chosen


def cross_validated(rows: np.ndarray, labels: np.ndarray, fold: np.ndarray, C: float = 1.0) -> float:
    """AUROC of out-of-fold scores, compared within folds."""
    return float(auroc(out_of_fold(rows, labels, fold, C), labels, strata=fold))


def out_of_fold(rows: np.ndarray, labels: np.ndarray, fold: np.ndarray, C: float = 1.0) -> np.ndarray:
    """Log-odds of each sample from the probe that did not see its fold, float64 ``[sample]``."""
    scores = np.empty(len(labels))
    for number in np.unique(fold):
        left = fold == number
        scores[left] = LogisticProbe(C).fit(rows[~left], labels[~left]).decision_function(rows[left])
    return scores
