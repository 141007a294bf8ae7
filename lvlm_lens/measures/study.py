"""What a measure of a model is given: the model on a data set, read once, with everything that measures share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..activations.capture import capture
from ..data import Sample
from ..errors import DataError, UsageError
from ..lens import LVLM
from ..models.positions import Positions
from ..stats.curve import Baseline, Curve
from .baselines import baseline_features
from .blocks import ArrayBlocks
from .evidence import Evidence
from .items import group_names, harm_labels
from .unembedding import Unembedding, unembedding_of

Tell = Callable[[str, int, int], None]


class FittedProbe(Protocol):
    """What measures use of a fitted :class:`~.linear_probe.LinearProbe`, whose shapes are said there."""

    blocks_: np.ndarray
    fold_: np.ndarray
    scores_: np.ndarray
    null_labels_: np.ndarray
    null_scores_: np.ndarray

    def curve(self, metric: str) -> Curve:
        """Another metric of the same out-of-fold scores."""


class Located(Protocol):
    """What measures use of :class:`lvlm_lens.locate.locating.Located`: curves and fitted probes by role, the roles."""

    @property
    def curves(self) -> Mapping[str, Curve]:
        """Curves by name."""

    @property
    def probes(self) -> Mapping[str, FittedProbe]:
        """Fitted probes of perception and semantics."""

    @property
    def roles(self) -> Any:
        """:class:`lvlm_lens.locate.roles.LayerRoles`."""


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
        out: folder where something trained may be kept, or ``None``.
        progress: progress callback ``(stage, done, all)``.
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
    out: Path | None = None
    progress: Tell = lambda stage, done, total: None

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
    def draws(self) -> dict[str, Any]:
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
                batch_size=self.batch_size, progress=lambda done, total: self.progress(f"reading: {key}", done, total),
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
