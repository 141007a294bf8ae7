"""VLGuard's fine-tuning (arXiv 2402.02207): safety rows and helpful rows in one supervised training.

Its data hold harmful pictures, and harmless pictures each with a harmful and a harmless instruction.  *Post-hoc*
fine-tuning joins 2,000 of them with 5,000 helpful items of LLaVA's own training, so that the model does not learn to
refuse everything; the ratio is kept here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..data import Sample
from ..data.registry import load_dataset
from ..errors import DataError
from .method import Row, Settings
from .replies import described
from .sft import SFT

if TYPE_CHECKING:
    from ..lens import LVLM

HELPFUL_SHARE = 5 / 2
"""Helpful rows for each safety row: 5,000 to 2,000."""


@dataclass(eq=False, repr=False)
class VLGuard(SFT):
    """Post-hoc safety fine-tuning as VLGuard does it.

    Args:
        helpful: a data set of helpful items with reference replies, as ``load_dataset`` takes it; by default questions
            about what the training's own pictures show, where the data say that.
        root: of that data set.
    """

    name = "vlguard"
    title = "VLGuard fine-tuning, post-hoc"
    source = "arXiv 2402.02207; ys-zong/VLGuard @ a2f85c9 (data converter read), LLaVA's own fine-tuning script"
    approximation = (
        "a harmless picture's two instructions are two rows, not two turns of one conversation; LoRA in place of full "
        "tuning; epochs and rates are not stated in the release; this is an approximation in those points"
    )
    rate = 2e-4

    helpful: str | None = None
    root: str | None = None

    def rows(self, model: LVLM, data: Sequence[Sample], settings: Settings) -> list[Row]:
        """Safety rows, and five helpful ones for two of them."""
        safety = super().rows(model, data, settings)
        chance = random.Random(f"vlguard {settings.seed}")
        helpful = self._helpful(data)
        if not helpful:
            raise DataError(
                "no helpful rows: these data do not say what their pictures show; give --option helpful=DATASET, a set "
                "of harmless items with reference replies"
            )
        wanted = round(HELPFUL_SHARE * len(safety))
        chance.shuffle(helpful)
        repeats = [helpful[number % len(helpful)] for number in range(wanted)]
        named = [
            replace(row, name=f"{row.name}-{number // len(helpful)}") if number >= len(helpful) else row
            for number, row in enumerate(repeats)
        ]
        return [*safety, *named]

    def _helpful(self, data: Sequence[Sample]) -> list[Row]:
        if self.helpful is None:
            return described(data)
        return [Row(s, s.reference or "", name=s.id) for s in self.further_samples()]

    def further_samples(self) -> Sequence[Sample]:
        """The helpful set, its ids marked."""
        if self.helpful is None:
            return ()
        found = load_dataset(self.helpful, root=self.root)
        return [replace(s, id=f"helpful-{s.id}") for s in found if s.reference and s.harmful != 1]
