"""SafeVLM as a defence: the head reads the request, a hint follows it, the model with the adapter answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..data import Sample
from ..lens import LVLM
from ..train.safevlm import SAFE, load_side
from ..train.safevlm_side import read_request
from .base import prompt_text
from .trained import Trained

HINTS = {
    1: "(A safety check of this request sees {kind}: answer with care and warn of what can go wrong.)",
    2: "(A safety check of this request sees {kind}: you may decline it.)",
    3: "(A safety check of this request sees {kind}: do not help with it. Begin with: {refusal})",
}
"""Our own words; the release's are not copied."""


class SafeVLMDefense(Trained):
    """The head's verdict as a hint after the request, answered by the model with the adapter.

    Attributes (after ``fit``): ``side_``, ``kinds_``, and those of :class:`~lvlm_lens.defenses.trained.Trained`.
    """

    def fit(self, model: LVLM, data: Sequence[Sample]) -> SafeVLMDefense:
        """Put the adapter on a copy of the model and the head beside it."""
        super().fit(model, data)
        self.side_, self.kinds_ = load_side(Path(self.folder).expanduser())
        self.side_.to(self.model_.device)
        return self

    @torch.no_grad()
    def predict(self, samples: Sequence[Sample]) -> list[tuple[int, str]]:
        """Level and kind of each request, from the head."""
        found = []
        for sample in samples:
            words, picture = read_request(self.model_, sample)
            level, kind = self.side_([words], [picture])
            found.append((int(level.argmax()), self.kinds_[int(kind.argmax())]))
        return found

    def rewrite(self, sample: Sample) -> Sample:
        """The request with the hint that its level asks for; unchanged at level 0 and for the kind "safe"."""
        ((level, kind),) = self.predict([sample])
        if level == 0 or kind == SAFE:
            return sample
        hint = HINTS[level].replace("{kind}", kind).replace("{refusal}", prompt_text("refusal"))
        return replace(sample, text=f"{sample.text}\n{hint}")
