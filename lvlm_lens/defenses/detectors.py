"""Detectors that read one vector a prompt: first-token probe, NEARSIDE, refusal direction, VLMGuard, safety heads.

All score larger for more dangerous prompts and refuse from ``threshold_`` on; see each class for its source and for
what is this project's choice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..activations import Site, capture
from ..data import Sample
from ..data.groups import groups_of
from ..errors import DataError, UsageError
from ..lens import LVLM
from ..stats.auroc import auroc
from ..stats.resampling import group_folds
from .base import Detector, labelled
from .extraction import extract
from .probe import LogisticProbe
from .sasa import out_of_fold


def residual(
    model: LVLM, samples: Sequence[Sample], block: int, batch_size: int, site: str = "resid_post"
) -> np.ndarray:
    """A site at the last prompt token, float32 ``[sample, ...]``."""
    return capture(model, samples, Site(site, block), "last", batch_size=batch_size)[site, block][:, 0]


@dataclass(eq=False, repr=False)
class FirstTokenProbe(Detector):
    """Logistic regression on the logits of the first answer token (The First to Know, arXiv 2403.09037).

    The authors' protocol: the first 10 samples of each scenario are the training set; scikit-learn's default
    logistic regression (C = 1, classes not weighted), threshold 0.5.

    Args:
        per_scenario: samples of each scenario (category and label) used for training, in the data's order.
        C: inverse regularisation.
        threshold: probability from which the guard refuses.
        batch_size: rows per forward.
    """

    name = "first_token"
    needs = frozenset({"training data"})
    source = "arXiv 2403.09037"

    per_scenario: int = 10
    C: float = 1.0
    threshold: float = 0.5
    batch_size: int = 32

    def training_rows(self, samples: Sequence[Sample]) -> list[int]:
        """Indices of the first ``per_scenario`` samples of each category and label."""
        if self.per_scenario < 1:
            raise UsageError(f"per_scenario is {self.per_scenario}; give at least 1")
        count: dict[tuple[str, int | None], int] = defaultdict(int)
        rows = []
        for row, sample in enumerate(samples):
            key = (sample.category, sample.harmful)
            if count[key] < self.per_scenario:
                rows.append(row)
            count[key] += 1
        return rows

    def fit_logits(self, logits: np.ndarray, samples: Sequence[Sample]) -> FirstTokenProbe:
        """Fit on given first-token logits ``[sample, vocab]``."""
        rows = self.training_rows(samples)
        labels = np.array([int(samples[i].harmful or 0) for i in rows])
        self.probe_ = LogisticProbe(self.C, balanced=False).fit(logits[rows], labels)
        self.n_train_, self.threshold_ = len(rows), float(self.threshold)
        return self

    def fit(self, model: LVLM, data: Sequence[Sample]) -> FirstTokenProbe:
        """Fit on the first samples of each scenario."""
        self.check_model(model)
        samples, _ = labelled(data)
        few = [samples[i] for i in self.training_rows(samples)]
        return self.fit_logits(extract(model, few, [], "logits", self.batch_size).plain, few)

    def score_prompt(self, model: LVLM, samples: Sequence[Sample]) -> np.ndarray:
        """Probability of danger."""
        self.check_fitted()
        return self.probe_.predict_proba(extract(model, samples, [], "logits", self.batch_size).plain)


@dataclass(eq=False, repr=False)
class _OneDirection(Detector):
    """Projection on a direction at one block, threshold midway between the classes' means."""

    site = "resid_post"

    block: int | None = None
    batch_size: int = 32

    def fit(self, model: LVLM, data: Sequence[Sample]) -> _OneDirection:
        """Unit difference of the class means; the threshold is the midpoint of their projections."""
        self.check_model(model)
        samples, labels = labelled(data)
        self.block_ = self._choose(model, samples, labels)
        rows = residual(model, samples, self.block_, self.batch_size, self.site).astype(np.float64)
        self._learn(rows, labels)
        return self

    def _choose(self, model: LVLM, samples: Sequence[Sample], labels: np.ndarray) -> int:
        del samples, labels
        return model.anatomy.block_index(-1 if self.block is None else self.block)

    def _learn(self, rows: np.ndarray, labels: np.ndarray) -> None:
        harmful, harmless = rows[labels == 1].mean(0), rows[labels == 0].mean(0)
        length = np.linalg.norm(harmful - harmless)
        if not length > 0:
            raise DataError(f"harmful and harmless means are equal at block {self.block_}; there is no direction")
        self.direction_ = (harmful - harmless) / length
        self.threshold_ = float((harmful + harmless) @ self.direction_ / 2)

    def score_prompt(self, model: LVLM, samples: Sequence[Sample]) -> np.ndarray:
        """Projection of each prompt on the direction."""
        self.check_fitted()
        return residual(model, samples, self.block_, self.batch_size, self.site).astype(np.float64) @ self.direction_


class NEARSIDE(_OneDirection):
    """Unit mean-difference direction, threshold at the midpoint (NEARSIDE); the last block by default.

    Args:
        block: block whose output is read.
        batch_size: rows per forward.
    """

    name = "nearside"
    needs = frozenset({"training data"})
    approximation = "the block is this project's choice (the last)"
    source = "NEARSIDE, formula second-hand, not checked against the paper"


@dataclass(eq=False, repr=False)
class RefusalDirection(_OneDirection):
    """Difference of means of ``resid_pre`` at the last prompt token, used as a detector (arXiv 2406.11717).

    The published selection (position and block by ablation, KL and steering) is replaced by the block with the
    highest cross-validated AUROC among blocks below 0.8 L.

    Args:
        block: block whose input is read; ``None`` chooses it.
        batch_size: rows per forward.
        folds: of the choice.
        random_state: seed of the folds.
    """

    name = "refusal_direction"
    needs = frozenset({"training data"})
    approximation = "block chosen by cross-validated AUROC below 0.8 L, last position only, not by ablation and KL"
    source = "arXiv 2406.11717"
    site = "resid_pre"

    folds: int = 4
    random_state: int = 0

    def _choose(self, model: LVLM, samples: Sequence[Sample], labels: np.ndarray) -> int:
        if self.block is not None:
            return model.anatomy.block_index(self.block)
        blocks = [b for b in range(model.n_blocks) if 0 < b < 0.8 * model.n_blocks] or [0]
        acts = capture(model, samples, [Site(self.site, b) for b in blocks], "last", batch_size=self.batch_size)
        fold = group_folds(labels, groups_of(samples), self.folds, self.random_state)
        found = []
        for block in blocks:
            rows = acts[self.site, block][:, 0].astype(np.float64)
            scores = np.empty(len(labels))
            for number in range(self.folds):
                left = fold == number
                means = [rows[~left & (labels == value)].mean(0) for value in (1, 0)]
                scores[left] = rows[left] @ (means[0] - means[1])
            found.append(auroc(scores, labels, strata=fold))
        return blocks[int(np.argmax(found))]


@dataclass(eq=False, repr=False)
class VLMGuard(Detector):
    """VLMGuard: a subspace of unlabelled prompts, pseudo-labels from it, then a classifier.

    The top singular directions of the centred residuals of unlabelled prompts are found; prompts with the largest
    mean squared projection are pseudo-labelled harmful; logistic regression is trained on that.  Which side of the
    subspace is harmful is not told by unlabelled data: prompts that lie far out count as harmful.

    Args:
        block: block whose output is read; default the middle one.
        directions: number of singular directions.
        share: share of prompts taken to be harmful, as prior knowledge.
        C: inverse regularisation of the classifier.
        batch_size: rows per forward.
    """

    name = "vlmguard"
    needs = frozenset({"unlabelled data"})
    approximation = "pseudo-labels by a given share instead of a tuned threshold; linear classifier"
    source = "VLMGuard, formula second-hand, not checked against the paper"

    block: int | None = None
    directions: int = 1
    share: float = 0.5
    C: float = 1.0
    batch_size: int = 32

    def fit(self, model: LVLM, data: Sequence[Sample]) -> VLMGuard:
        """Learn from prompts whose labels are not looked at."""
        self.check_model(model)
        if not 0 < self.share < 1:
            raise UsageError(f"share is {self.share}; give a share between 0 and 1")
        if len(data) < 4:
            raise DataError(f"{len(data)} unlabelled prompts; at least 4 are needed")
        self.block_ = model.n_blocks // 2 if self.block is None else model.anatomy.block_index(self.block)
        rows = residual(model, data, self.block_, self.batch_size).astype(np.float64)
        _, _, vt = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
        self.directions_ = vt[: self.directions]
        far = (((rows - rows.mean(0)) @ self.directions_.T) ** 2).mean(1)
        harmful = int(np.clip(round(self.share * len(data)), 1, len(data) - 1))
        self.pseudo_labels_ = np.zeros(len(data), dtype=np.int64)
        self.pseudo_labels_[np.argsort(-far, kind="stable")[:harmful]] = 1
        self.probe_ = LogisticProbe(self.C, balanced=True, standardize=True).fit(rows, self.pseudo_labels_)
        self.threshold_ = 0.5
        return self

    def score_prompt(self, model: LVLM, samples: Sequence[Sample]) -> np.ndarray:
        """The classifier's probability."""
        self.check_fitted()
        return self.probe_.predict_proba(residual(model, samples, self.block_, self.batch_size))


@dataclass(eq=False, repr=False)
class SafetyHeads(Detector):
    """Safety heads (arXiv 2501.02029): a probe on each head, the best k heads together.

    Each attention head's output at the last prompt token (before o_proj) gets a logistic probe, cross-validated by
    group; the k heads with the highest accuracy are concatenated for the final one.

    Args:
        k: number of heads.
        C: inverse regularisation.
        folds: of the choice of heads.
        batch_size: rows per forward.
        random_state: seed of the folds.
    """

    name = "safety_heads"
    needs = frozenset({"training data"})
    approximation = "k and the regularisation are this project's choice"
    source = "arXiv 2501.02029"

    k: int = 8
    C: float = 1.0
    folds: int = 3
    batch_size: int = 32
    random_state: int = 0

    def fit(self, model: LVLM, data: Sequence[Sample]) -> SafetyHeads:
        """Probe every head, keep the best k, fit on them."""
        self.check_model(model)
        samples, labels = labelled(data)
        acts = capture(model, samples, "z", "last", batch_size=self.batch_size)
        blocks = acts.blocks("z")
        fold = group_folds(labels, groups_of(samples), self.folds, self.random_state)
        accuracy = {}
        for block in blocks:
            rows = acts["z", block][:, 0]  # [sample, head, head_dim]
            for head in range(rows.shape[1]):
                scores = out_of_fold(rows[:, head], labels, fold, self.C)
                accuracy[block, head] = float(((scores > 0) == (labels == 1)).mean())
        if not 1 <= self.k <= len(accuracy):
            raise UsageError(f"k is {self.k}; the model has {len(accuracy)} heads")
        self.accuracy_ = accuracy
        self.heads_ = sorted(accuracy, key=lambda key: -accuracy[key])[: self.k]
        rows = np.concatenate([acts["z", b][:, 0, h] for b, h in self.heads_], axis=1)
        self.probe_ = LogisticProbe(self.C, balanced=True).fit(rows, labels)
        self.threshold_ = 0.5
        return self

    def score_prompt(self, model: LVLM, samples: Sequence[Sample]) -> np.ndarray:
        """Probability from the chosen heads."""
        self.check_fitted()
        sites = [Site("z", block) for block in sorted({block for block, _ in self.heads_})]
        acts = capture(model, samples, sites, "last", batch_size=self.batch_size)
        rows = np.concatenate([acts["z", b][:, 0, h] for b, h in self.heads_], axis=1)
        return self.probe_.predict_proba(rows)
