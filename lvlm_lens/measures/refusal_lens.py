"""Refusal lens (HiddenDetect, arXiv 2502.14744, read in the authors' code).

``F_l = cos(W norm(h_l), r)`` with r the indicator of the first sub-tokens of some twenty refusal words: how much
the lens of block l looks like refusal.  ``FDV_l = mean F_l(unsafe) - mean F_l(safe)``; safety-aware blocks are those
whose FDV exceeds the last block's; a prompt's score is the trapezoid area of F over them.

The raw cosine is dominated by the mean logit, which says nothing (softmax ignores it): ``centred=True`` takes it off
from both vectors.  The cosine needs the length of the logit vector, and ``|W h|^2 = h'(W'W)h``: so nothing of the size
of the vocabulary is ever formed for a sample, and one ``d x d`` matrix serves all blocks.  [own; equal to the plain
form up to rounding, tested.]  With a bias or soft-capped logits the plain form is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..stats.auroc import weighted_auroc
from ..stats.curve import Curve
from ..stats.resampling import permute_labels, weighted_mean
from .blocks import iterate
from .measure import Measure, two_kinds
from .spec import LensSize, Measured, MeasureSpec, Products
from .study import Study
from .unembedding import Unembedding, token_ids


@dataclass(eq=False, repr=False)
class RefusalLens(Measure):
    """Difference of refusal cosine between unsafe and safe prompts (FDV), one value per block.

    Args:
        unembedding: final norm and head.
        refusal_ids: token ids of r.
        centred: take the mean logit off.
        replicates, permutations, confidence, random_state: see :class:`~.measure.Measure`.

    Attributes:
        curve_: FDV; cosines_ ``[sample, block]``: F; safety_blocks_: block numbers with FDV above the last
        block's, between the first and last of them the window of :meth:`prompt_scores`.
    """

    name = "refusal_lens"
    unit = "cosine difference"
    source = "HiddenDetect, arXiv 2502.14744 [code]; closed form and centred version [own]"

    unembedding: Unembedding
    refusal_ids: Sequence[int]
    centred: bool = False

    def fit(self, activations: Any, labels: Any, groups: Any = None) -> RefusalLens:
        """Measure FDV.

        ``activations``: block outputs ``[sample, block, d]``, the last one before the final norm; ``labels``: larger
        value = unsafe; ``groups`` are resampled and shuffled together.
        """
        unsafe = two_kinds(labels)
        n = len(unsafe)
        weights = self._weights(groups, n)
        shuffled = permute_labels(unsafe, groups, self.permutations, self.random_state + 1)
        self.cosines_ = self._cosines(activations, n)
        value = _difference(self.cosines_, unsafe)
        with np.errstate(invalid="ignore"):
            replicates = weighted_mean(self.cosines_, weights * unsafe) - weighted_mean(
                self.cosines_, weights * ~unsafe
            )
        null = np.stack([_difference(self.cosines_, y) for y in shuffled])
        self.curve_ = self._keep(
            activations, value, list(replicates.T), list(null.T), n, name="refusal lens" + ", centred" * self.centred,
            refusal_tokens=len(np.unique(np.asarray(self.refusal_ids))),
        )  # fmt: skip
        self.safety_blocks_ = [b for b, v in zip(self.blocks_, value, strict=True) if v > value[-1]]
        return self

    def transform(self, activations: Any) -> np.ndarray:
        """Refusal cosine F, ``[sample, block]``."""
        return self._cosines(activations, None)

    def _cosines(self, activations: Any, n: int | None) -> np.ndarray:
        ids = token_ids(self.refusal_ids, self.unembedding.vocab, "refusal_ids")
        return np.stack([self._cosine(rows, ids) for _, rows in iterate(activations, n)], 1)

    def _cosine(self, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        u = self.unembedding
        share = len(ids) / u.vocab
        target = np.sqrt(len(ids) * (1 - share)) if self.centred else np.sqrt(len(ids))  # |r|, centred or not
        if u.bias is not None or u.softcap is not None:
            out = np.empty(len(rows))
            for part, logits in u.chunks(rows):
                logits = logits.double() - (logits.double().mean(1, keepdim=True) if self.centred else 0)
                out[part] = (logits[:, ids].sum(1) / (logits.norm(dim=1) * target)).cpu().numpy()
            return out
        h = u.normed(rows).double().cpu()
        weight = u.weight[torch.as_tensor(ids, device=u.weight.device)].double().cpu()
        mean = u.mean_row if self.centred else torch.zeros(h.shape[1], dtype=torch.float64)
        inner = (h @ (weight - mean).T).sum(1)
        # |W h - mean|^2 = |W h|^2 - V mean^2
        length = torch.sqrt((((h @ u.gram) * h).sum(1) - u.vocab * (h @ mean) ** 2).clamp(min=0))
        return (inner / (length * target).clamp(min=1e-300)).numpy()

    def prompt_scores(self, activations: Any) -> np.ndarray:
        """Trapezoid area of F over the window of safety-aware blocks (all blocks if there are none), ``[sample]``."""
        cosines = self.transform(activations)
        blocks = np.asarray(self.blocks_, dtype=np.float64)
        inside = np.ones(len(blocks), dtype=bool)
        if self.safety_blocks_:
            inside = (blocks >= self.safety_blocks_[0]) & (blocks <= self.safety_blocks_[-1])
        if inside.sum() == 1:
            return cosines[:, inside][:, 0]
        return np.trapezoid(cosines[:, inside], blocks[inside], axis=1)

    def score(self, activations: Any, labels: Any) -> np.ndarray:
        """AUROC of F by block on other samples, ``[block]``."""
        return weighted_auroc(self.transform(activations), labels)[0]


def _difference(values: np.ndarray, unsafe: np.ndarray) -> np.ndarray:
    return values[unsafe].mean(0) - values[~unsafe].mean(0)


def _compute(study: Study) -> Measured:
    def fit(states: Any, lens: Unembedding) -> dict[bool, Curve]:
        lens = replace(lens)  # its W'W serves both forms and is freed with it: of two heads, one stands at a time
        made = {}
        for centred in (True, False):
            measure = RefusalLens(lens, study.evidence.refusal_ids, centred, **study.draws)
            made[centred] = measure.fit(states, study.labels, study.groups).curve_
        return made

    curves = fit(study.last_blocks, study.lens)
    if study.lens_twin is not None:
        twin = fit(*study.lens_twin)
        curves = {centred: curve.with_baseline("random_twin", twin[centred]) for centred, curve in curves.items()}
    return Measured(curves[False], {"refusal_lens_centred": curves[True]})


def _products(size: LensSize) -> Products:
    """``W'W`` once a head, then ``h (W'W)`` for each item and block, centred and not.

    Of the closed form only: with a bias or soft-capped logits the plain form is used, and what it takes is not counted.
    """
    heads = 1 + int(size.twin)
    once, each = size.vocabulary * size.width**2, size.items * size.blocks * size.width**2
    return Products(double=heads * (once + 2.0 * each))


SPEC = MeasureSpec(
    "refusal_lens", "expression", "cheap", RefusalLens.source,
    "refusal cosine of the lens, unsafe minus safe prompts (mean-centred beside it)", _compute, default=True,
    probes=0.0, products=_products, planted="refusal", variants=("refusal_lens_centred",),
)  # fmt: skip
