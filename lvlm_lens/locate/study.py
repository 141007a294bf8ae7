"""What a measure of a *model* is given and what it must give back: one contract for all of them.

The estimators of this room work on arrays.  A :class:`MeasureSpec` says how one of them is computed for a model on a
data set: which states it reads, which samples it compares, what stands beside it.  It gets a :class:`Study` (model,
evidence, labels, random twin, settings) and returns a :class:`Measured`, whose curve is held to the contract by
:func:`measure`: the blocks of the study, an interval from kept replicates, a null (or the reason why there can be
none), the source, and every baseline that can be formed.

Measures that only read live in :mod:`.measures`; those that edit the model's forward live with the causal tools
(:mod:`lvlm_lens.causal.measures`); the stages put both lists together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..activations.capture import capture
from ..data import Sample
from ..errors import DataError, ModelError, UsageError
from ..lens import LVLM
from ..models.positions import Positions
from ..models.quantized import dense, float_dtype
from ..models.weights import offloaded, standalone
from .blocks import ArrayBlocks
from .curve import Baseline, Curve
from .evidence import Evidence
from .locating import Located, baseline_features, group_names, harm_labels
from .unembedding import Unembedding

COSTS = {
    "free": "already there after locating",
    "cheap": "arithmetic on what was read",
    "forward": "up to three more forwards an item",
    "edits": "many forwards of a few items, with edits in place",
}
"""Cost classes, in rising order."""

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Measured:
    """A measure of one model: its curve, curves that belong to it (variants, parts) and JSON-ready tables."""

    curve: Curve
    others: Mapping[str, Curve] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MeasureSpec:
    """How one measure is computed for a model.

    Attributes:
        name: as written on the command line.
        role: ``perception``, ``semantics``, ``expression``, or ``None`` where it describes and speaks for no role.
        cost: one of :data:`COSTS`.
        source: where the method is published, with the honesty marks of the docstrings.
        what: one line for tables.
        compute: the measure; raises a :class:`~lvlm_lens.errors.LensError` that says what is missing where
            it cannot be measured.
        default: in the default set.
        votes: counted in the consensus of its role.
        expected: baselines whose absence is printed beside its role.
    """

    name: str
    role: str | None
    cost: str
    source: str
    what: str
    compute: Callable[[Study], Measured]
    default: bool = False
    votes: bool = True
    expected: tuple[str, ...] = ("random_twin",)


@dataclass
class Study:
    """A model on a data set, read once, with everything measures share.

    Attributes:
        model: the model.
        evidence: of the items with a label only; labels int64 ``[n]``, groups ``[n]`` belong to its rows.
        located: the roles and their curves, with the fitted probes.
        twin: evidence of the random-weight twin on the same items, or ``None``; twin_lens: the twin's own final norm
            and head.
        positions: where ``evidence.resid`` was read.
        folds, permutations, replicates, seed, batch_size: settings.
        folder: where something trained may be kept, or ``None``.
        tell: progress callback ``(stage, done, all)``.
    """

    model: LVLM
    evidence: Evidence
    located: Located
    twin: Evidence | None = None
    twin_lens: Unembedding | None = None
    positions: str = "last"
    folds: int = 5
    permutations: int = 50
    replicates: int = 1000
    seed: int = 0
    batch_size: int = 32
    folder: Path | None = None
    tell: Tell = lambda stage, done, total: None

    def __post_init__(self) -> None:
        known = harm_labels(self.evidence.samples) >= 0
        self.evidence = self.evidence.rows(known)
        if self.twin is not None:
            at = {sample.id: row for row, sample in enumerate(self.twin.samples)}
            self.twin = self.twin.rows([at[sample.id] for sample in self.evidence.samples])
        self.labels = harm_labels(self.evidence.samples)
        self.groups = group_names(self.evidence.samples)
        self._states: dict[Any, np.ndarray] = {}

    @property
    def draws(self) -> dict[str, int]:
        """Settings of an estimator: replicates, permutations, random_state."""
        return {"replicates": self.replicates, "permutations": self.permutations, "random_state": self.seed}

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The labelled samples, row by row."""
        return self.evidence.samples

    @property
    def refused(self) -> np.ndarray:
        """Bool ``[n]``: the model's own first-token refusal log-odds are above 0."""
        return self.evidence.log_odds > 0

    @property
    def pictures(self) -> bool:
        """Whether any item shows a picture."""
        return any(sample.images for sample in self.samples)

    @cached_property
    def features(self) -> dict[str, np.ndarray]:
        """Baseline features ``[n, feature]``: words, picture, input embedding."""
        return baseline_features(self.evidence)

    @cached_property
    def lens(self) -> Unembedding:
        """Final norm and head of the model."""
        return unembedding_of(self.model)

    def states(self, key: str, samples: Sequence[Sample], positions: str = "last") -> np.ndarray:
        """resid_post ``[sample, block, d]`` of other inputs (or elsewhere), read once under ``key``.

        Raises :class:`DataError` where a sample cannot be read.
        """
        where = (key, positions, tuple(sample.id for sample in samples))
        if where not in self._states:
            sites = [f"blocks.{b}.hook_resid_post" for b in self.evidence.blocks]
            found = capture(
                self.model, samples, sites, positions, reduce=None if positions == "last" else "mean",
                batch_size=self.batch_size, progress=lambda done, total: self.tell(f"reading: {key}", done, total),
            )  # fmt: skip
            self._states[where] = found["resid_post"][:, :, 0]
        return self._states[where]

    @property
    def last(self) -> np.ndarray:
        """resid_post at the last prompt token, ``[n, block, d]``: what the lenses read."""
        if Positions.parse(self.positions) == Positions.parse("last"):
            return self.evidence.resid
        return self.states("last prompt token", self.samples)

    @property
    def last_blocks(self) -> ArrayBlocks:
        """:attr:`last` by block number."""
        return ArrayBlocks(self.last, self.evidence.blocks)

    @property
    def lens_twin(self) -> tuple[Evidence, Unembedding] | None:
        """The twin's states at the last prompt token and its own head, where both are there."""
        if self.twin is None or self.twin_lens is None:
            return None
        return (self.twin, self.twin_lens) if Positions.parse(self.positions) == Positions.parse("last") else None

    def needs_last_block(self) -> None:
        """Raise where the chosen blocks leave the last one out: the lens then has nothing to agree with."""
        if self.evidence.blocks[-1] != self.model.n_blocks - 1:
            raise UsageError(f"it compares with the last block, {self.model.n_blocks - 1}, which was not chosen")

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Matched pairs among the items: rows, labels (1 harmful), pair names and groups, ``[2 x pair]`` each.

        Raises :class:`DataError` where there are fewer than four.
        """
        at = {sample.id: row for row, sample in enumerate(self.samples)}
        rows: list[int] = []
        for row, sample in enumerate(self.samples):
            other = at.get(sample.counterfactual or "")
            if sample.harmful == 1 and other is not None and self.labels[other] == 0:
                rows += [row, other]
        if len(rows) < 8:
            raise DataError(f"{len(rows) // 2} matched pairs of a harmful and a harmless item; at least 4 are needed")
        index = np.asarray(rows)
        names = np.repeat([f"pair {i:06d}" for i in range(len(rows) // 2)], 2)
        return index, self.labels[index], names, np.repeat(self.groups[index[::2]], 2)

    def some(self, rows: np.ndarray, count: int) -> np.ndarray:
        """At most ``count`` of the given rows, drawn by the seed, spread over as many groups as there are, sorted."""
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(rows)
        seen: dict[str, int] = {}
        turn = []
        for row in order:
            turn.append(seen.get(self.groups[row], 0))
            seen[self.groups[row]] = turn[-1] + 1
        return np.sort(order[np.argsort(turn, kind="stable")[:count]])

    def beside(
        self, curve: Curve, fit: Callable[[Any], Curve], features: Sequence[str] | None = None, twin: Any = None
    ) -> Curve:
        """The curve with its baselines: ``fit`` on the baseline features (all, or those named) and on the twin.

        ``twin``: what ``fit`` gets for the twin (default its residual stream); ``False`` for none.
        """
        for key, value in self.features.items():
            if features is None or key in features:
                other = fit(value)
                curve = curve.with_baseline(key, _scalar(other))
        if self.twin is not None and twin is not False:
            curve = curve.with_baseline("random_twin", fit(self.twin if twin is None else twin))
        return curve


def _scalar(curve: Curve) -> Baseline:
    """One number for all blocks; drawn on the curve's own resampled groups, so its replicates stay."""
    return Baseline(float(curve.value[0]), float(curve.low[0]), float(curve.high[0]), curve.replicates)


def unembedding_of(model: LVLM, keep: bool = False) -> Unembedding:
    """Final norm and head of a model as plain functions; the logit scale is folded into the weights.

    With ``keep`` they are copies, which a random twin's must be: its weights are put back.

    Raises :class:`ModelError` for a family that bars ids after its head: their logits are no numbers to compare.
    """
    anatomy = model.anatomy
    if anatomy.barred is not None:
        raise ModelError(f"family {anatomy.family.model_type!r} bars tokens after its head; the lens has no such step")
    head: Any = anatomy.head
    norm = anatomy.norm
    if keep or offloaded(model.model):
        head, norm = standalone(model.model, head), standalone(model.model, norm)
    dtype = float_dtype(head, norm)
    weight, bias = dense(head.weight, dtype), getattr(head, "bias", None)
    scale = anatomy.logit_scale
    return Unembedding(
        weight.detach() * scale if scale != 1 else weight.detach(),
        lambda rows: norm(rows.to(dtype)),
        None if bias is None else bias.detach() * scale,
        anatomy.softcap or None,
    )


def measure(spec: MeasureSpec, study: Study) -> Measured:
    """Compute a measure and hold its curve to the contract.

    Raises:
        LensError: it cannot be measured here; the message says what is missing.
        AssertionError: the measure breaks the contract (a mistake in its code, not in the data).
    """
    found = spec.compute(study)
    if not np.isfinite(found.curve.value).any():
        raise DataError(str(found.curve.meta.get("undefined", "the curve has no finite value")))
    curves = {spec.name: found.curve, **found.others}
    kept = {name: _held(spec, name, curve, study) for name, curve in curves.items()}
    return Measured(kept.pop(spec.name), kept, found.tables)


def _held(spec: MeasureSpec, name: str, curve: Curve, study: Study) -> Curve:
    blocks = tuple(study.evidence.blocks)
    if curve.blocks == tuple(range(len(blocks))):  # measured on a plain array: places, not yet block numbers
        curve = replace(curve, blocks=blocks)
    must = {
        "blocks": curve.blocks == blocks,
        "replicates": curve.replicates is not None,
        "null": curve.null_draws is not None or "no_null" in curve.meta,
        "unit": bool(curve.unit),
    }
    broken = [what for what, held in must.items() if not held]
    assert not broken, f"measure {spec.name}, curve {name}: contract broken in {', '.join(broken)}"
    # the percentile interval of a folded quantity (an absolute difference) can leave its own small estimate out
    low, high = np.fmin(curve.low, curve.value), np.fmax(curve.high, curve.value)
    meta = {**curve.meta, "measure": spec.name, "role": spec.role, "source": spec.source, "cost": spec.cost}
    return replace(curve, name=name, low=low, high=high, meta={**meta, "depth": study.model.n_blocks})
