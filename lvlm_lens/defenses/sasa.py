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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..activations import Activations, Site, capture
from ..data import Sample
from ..data.groups import groups_of
from ..data.limits import limited_rows
from ..errors import ModelError, UsageError
from ..interventions.recording import record
from ..lens import LVLM
from ..models.batching import in_batches
from ..stats.auroc import auroc
from ..stats.resampling import group_folds
from .base import Detector, labelled
from .extraction import Extracted, donor_batches, extract
from .probe import LogisticProbe
from .projection import Cell, edit


@dataclass(eq=False, repr=False)
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

    roles: Any = None
    safety_block: int | None = None
    fused_block: int | None = None
    mode: str = "replace"
    strength: float = 1.0
    positions: str = "all"
    sink: bool = True
    projection: str = "onto_fused"
    control: str = "none"
    features: str = "logits"
    C: float = 1.0
    threshold: float = 0.5
    candidates: Sequence[int] | None = None
    selection_size: int = 200
    folds: int = 4
    batch_size: int = 32
    refusal_file: str | None = None
    random_state: int = 0

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

        for batch, part in in_batches(data, size, edited, donor_batches(data, size, pairs), 2 if pairs else 1):
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
