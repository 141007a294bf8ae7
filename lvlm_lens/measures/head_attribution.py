"""Which attention heads carry safety, from the outputs of a model with one head at a time switched off.

* **Ships** (arXiv 2410.13708, read in the authors' code): ``KL(p_base || p_ablated)`` at the last position.
* **SASA's own head score** [3P]: stack the last-token final states of n samples into ``X [n, d]``; score =
  ``acos |u1' u1_ablated|`` of leading left singular vectors, radians.  The left vector lives in *sample* space and
  is nearly constant on data with a common mean, whatever the head does [own]; so there are also ``right`` (the
  leading vector of feature space), ``centred`` (right, column means taken off) and ``rank`` (the largest
  principal angle between the centred leading k-dimensional feature subspaces).  The variant used is part of the
  result.

Safety-specific heads are the top k on safety data minus the top k on utility data (k = 10).
The models with a head switched off are run by :mod:`lvlm_lens.causal.head_scan`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..causal.head_scan import scan_heads
from ..errors import UsageError
from ..stats.auroc import weighted_auroc
from ..stats.resampling import permute_labels, weighted_mean
from .blocks import iterate
from .editing import ITEMS, halves, progress_of
from .measure import Measure, two_kinds
from .spec import Measured, MeasureSpec
from .study import Study

VARIANTS = ("left", "right", "centred", "rank")


class HeadContrast(Measure):
    """Heads whose switching-off matters more on harmful than on harmless prompts.

    ``activations`` here are per-sample head scores ``[sample, block, head]``, e.g. Ships' KL.

    Attributes:
        contrast_ ``[block, head]``: mean score on harmful minus mean on harmless samples; mean_ ``[block, head]``
            on harmful samples (Ships as published); curve_: the largest contrast of each block.  Its null takes
            the largest head too, and its interval is that of the chosen head; top_heads: see :meth:`top`.
    """

    name = "head_attribution"
    unit = "score difference"
    source = "Ships, arXiv 2410.13708 [code]; contrast with harmless prompts and its null [own]"

    def fit(self, activations: Any, labels: Any, groups: Any = None) -> HeadContrast:
        """``activations [sample, block, head]``; ``labels``: larger value = harmful."""
        harmful = two_kinds(labels)
        weights = self._weights(groups, len(harmful))
        shuffled = permute_labels(harmful, groups, self.permutations, self.random_state + 1)
        means, contrasts, replicates, null = [], [], [], []
        for _, rows in iterate(activations, len(harmful)):
            rows = rows.astype(np.float64)
            contrast = rows[harmful].mean(0) - rows[~harmful].mean(0)
            head = int(contrast.argmax())
            with np.errstate(invalid="ignore"):
                up, down = (weighted_mean(rows[:, head], weights * mask)[:, 0] for mask in (harmful, ~harmful))
            means.append(rows[harmful].mean(0))
            contrasts.append(contrast)
            replicates.append(up - down)
            null.append(np.array([(rows[y].mean(0) - rows[~y].mean(0)).max() for y in shuffled]))
        self.mean_, self.contrast_ = np.stack(means), np.stack(contrasts)
        self.curve_ = self._keep(
            activations, self.contrast_.max(1), replicates, null, len(harmful), name="head attribution"
        )
        return self

    def top(self, k: int = 10) -> list[tuple[int, int]]:
        """``(block, head)`` of the k largest contrasts, largest first."""
        return top_heads(self.contrast_, k, self.blocks_)

    def score(self, activations: Any, labels: Any) -> np.ndarray:
        """AUROC by block on other samples of the score of the block's chosen head, ``[block]``."""
        out = []
        for at, (_, rows) in enumerate(iterate(activations, len(np.asarray(labels)))):
            out.append(weighted_auroc(rows[:, int(self.contrast_[at].argmax())], labels)[0, 0])
        return np.array(out)


def top_heads(scores: np.ndarray, k: int = 10, blocks: Iterable[int] | None = None) -> list[tuple[int, int]]:
    """``(block, head)`` of the k largest entries of ``scores [block, head]``, largest first."""
    numbers = list(range(len(scores))) if blocks is None else list(blocks)
    order = np.argsort(-scores, axis=None, kind="stable")[:k]
    rows, heads = np.unravel_index(order, scores.shape)
    return [(numbers[int(r)], int(h)) for r, h in zip(rows, heads, strict=True)]


def safety_specific_heads(safety: np.ndarray, utility: np.ndarray, k: int = 10) -> list[tuple[int, int]]:
    """Top k heads on safety data that are not among the top k on utility data (``[block, head]`` scores) [3P]."""
    useful = set(top_heads(utility, k))
    return [head for head in top_heads(safety, k) if head not in useful]


def _basis(states: np.ndarray, variant: str, k: int) -> np.ndarray:
    """Orthonormal leading vectors as columns."""
    x = states.astype(np.float64)
    if variant in ("centred", "rank"):
        x = x - x.mean(0)
    count = k if variant == "rank" else 1
    if min(x.shape) < count:
        raise UsageError(f"states {x.shape} have no {count} singular vectors")
    if variant == "left":
        return np.linalg.eigh(x @ x.T)[1][:, -1:]
    return np.linalg.svd(x, full_matrices=False)[2][:count].T


def singular_vector_score(states: Any, ablated: Any, variant: str = "right", k: int = 5) -> float:
    """Angle, radians, between leading singular vectors of final states with and without a head.

    Args:
        states, ablated: ``[sample, d]``, the same samples in the same order.
        variant: ``left`` (as published [3P]), ``right``, ``centred`` or ``rank``.
        k: dimension for ``rank``.
    """
    if variant not in VARIANTS:
        raise UsageError(f"variant is {variant!r}; write one of {', '.join(VARIANTS)}")
    a, b = np.asarray(states), np.asarray(ablated)
    if a.shape != b.shape or a.ndim != 2:
        raise UsageError(f"states {a.shape} and ablated states {b.shape} do not match; expected [sample, d] twice")
    return _angle(_basis(a, variant, k), _basis(b, variant, k))


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    """Largest principal angle; from the sine where it is small, so that tiny angles are not rounded to 0."""
    cosines = np.linalg.svd(a.T @ b, compute_uv=False)
    sine = np.linalg.norm(b - a @ (a.T @ b), 2)
    return float(np.arctan2(sine, min(1.0, cosines.min())))


def _compute(study: Study) -> Measured:
    rows = halves(study)
    samples, blocks = [study.samples[row] for row in rows], study.evidence.blocks
    scan = scan_heads(study.model, samples, blocks, study.batch_size, progress_of(study, "switching heads off"))
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


SPEC = MeasureSpec(
    "head_attribution", "perception", "edits", f"{HeadContrast.source}; SASA's singular-vector score [3P]",
    "Ships' KL of one head switched off, harmful minus harmless (not counted: the largest head of a block, "
    "not its residual)", _compute, votes=False,
    # each head's run begins at its own block
    rows=lambda size: min(ITEMS, size.items) * (1 + size.heads * (size.blocks + 1) // 2),
    untested="in constructed models a head that brings danger brings safety too: without it both kinds of items stand "
    "half-way between, so no contrast of harmful and harmless is planted",
)  # fmt: skip
