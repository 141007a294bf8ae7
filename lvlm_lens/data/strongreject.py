"""StrongREJECT: forbidden prompts for a graded measure of harmful help (arXiv 2402.10260) [official].

``strongreject_dataset.csv``: ``category, source, forbidden_prompt``; 313 rows, text only, all unsafe.
"""

from __future__ import annotations

from pathlib import Path

from .cards import DatasetCard, register
from .collect import Collector, optional, words
from .dataset import Dataset
from .sample import Sample

NAMES = ("strongreject_dataset.csv", "strongreject_dataset/strongreject_dataset.csv", "strongreject.csv")


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """All forbidden prompts."""
    out = Collector("strongreject", root, strict)
    file = out.file(*NAMES)
    for number, (place, row) in enumerate(out.csv(file, "forbidden_prompt", "category")):
        with out.record(place, file):
            out.add(
                Sample(
                    id=str(number),
                    text=words(row, "forbidden_prompt"),
                    split="test",
                    group=str(number),
                    label_text="unsafe",
                    label_joint="unsafe",
                    category=optional(row, "category") or "",
                    subcategory=optional(row, "source") or "",
                ),
                place,
            )
    return out.dataset()


CARD = register(
    DatasetCard(
        name="strongreject",
        title="StrongREJECT",
        citation="Souly et al., A StrongREJECT for Empty Jailbreaks, NeurIPS 2024, arXiv 2402.10260",
        licence="MIT",
        homepage="https://github.com/alexandrasouly/strongreject",
        download="strongreject_dataset/strongreject_dataset.csv of github.com/alexandrasouly/strongreject",
        files=("|".join(NAMES),),
        counts={"samples": 313},
        loader=load,
    )
)
