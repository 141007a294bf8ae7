"""HiddenDetect (arXiv 2502.14744): the refusal vocabulary seen through the logit lens, summed over blocks.

``F_l = cos(lm_head(norm(h_l)), r)``, r the indicator of first sub-tokens of refusal words;
``FDV_l = mean_unsafe F_l - mean_safe F_l`` on a few training prompts; the safety-aware blocks are those with FDV_l
above the last block's; a prompt's score is the trapezoid area of F over them.  The raw cosine is dominated by the mean
logit, so a mean-centred version is offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..activations import capture
from ..data import Sample
from ..lens import LVLM
from ..models.refusal_tokens import refusal_token_ids
from .base import Detector, labelled


@dataclass(eq=False, repr=False)
class HiddenDetect(Detector):
    """Refusal lens over the safety-aware blocks.

    Args:
        centred: subtract each prompt's mean logit before the cosine (the published one does not).
        batch_size: rows per forward.

    Attributes (after ``fit``): ``window_`` (first and last safety-aware block), ``fdv_ [block]``, ``tokens_``,
    ``threshold_`` (midway between the training means).
    """

    name = "hiddendetect"
    needs = frozenset({"training data"})
    approximation = "the refusal words are this toolkit's list; threshold midway between the training means"
    source = "arXiv 2502.14744"

    centred: bool = False
    batch_size: int = 32

    @torch.inference_mode()
    def strength(self, model: LVLM, samples: Sequence[Sample]) -> np.ndarray:
        """F_l of every block, float32 ``[sample, block]``."""
        acts = capture(model, samples, "resid_post", "last", batch_size=self.batch_size)
        direction = torch.zeros(model.anatomy.vocab_size)
        direction[list(self.tokens_)] = 1.0
        columns = []
        for block in acts.blocks():
            rows = torch.from_numpy(acts["resid_post", block][:, 0]).to(model.device)
            logits = model.anatomy.lens(rows).float().cpu()  # [sample, vocab]
            if self.centred:
                logits = logits - logits.mean(-1, keepdim=True)
            columns.append(torch.nn.functional.cosine_similarity(logits, direction[None], dim=-1).numpy())
        return np.stack(columns, axis=1)

    def fit(self, model: LVLM, data: Sequence[Sample]) -> HiddenDetect:
        """Find the safety-aware blocks and the threshold."""
        self.check_model(model)
        samples, labels = labelled(data)
        self.tokens_ = refusal_token_ids(model)
        found = self.strength(model, samples)
        self.fdv_ = found[labels == 1].mean(0) - found[labels == 0].mean(0)
        aware = np.flatnonzero(self.fdv_ > self.fdv_[-1])
        # no block above the last: the last block alone is left
        self.window_ = (int(aware[0]), int(aware[-1])) if len(aware) else (len(self.fdv_) - 1, len(self.fdv_) - 1)
        area = self._area(found)
        self.threshold_ = float((area[labels == 1].mean() + area[labels == 0].mean()) / 2)
        return self

    def _area(self, strength: np.ndarray) -> np.ndarray:
        start, end = self.window_
        inside = strength[:, start : end + 1].astype(np.float64)
        return inside[:, 0] if start == end else np.asarray(np.trapezoid(inside, axis=1))

    def score_prompt(self, model: LVLM, samples: Sequence[Sample]) -> np.ndarray:
        """Trapezoid area of F over the window."""
        self.check_fitted()
        return self._area(self.strength(model, samples))
