"""HarmBench, multimodal part (arXiv 2402.04249) [third party].

``harmbench_behaviors_multimodal_all.csv``: ``Behavior, FunctionalCategory, SemanticCategory, Tags, ImageFileName,
BehaviorID, ImageDescription, RedactedImageDescription``; 110 rows, pictures beside it or in
``multimodal_behavior_images/``.
"""

from __future__ import annotations

from pathlib import Path

from .cards import DatasetCard, register
from .collect import Collector, in_words, optional, words
from .dataset import Dataset
from .sample import Sample

FILE = "harmbench_behaviors_multimodal_all.csv"
FOLDERS = ("multimodal_behavior_images", "images", "data/multimodal_behavior_images")


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """All behaviours; the picture's description is ``caption``, and in ``text_only`` it is said in words."""
    out = Collector("harmbench", root, strict)
    file = out.file(FILE, f"data/behavior_datasets/{FILE}")
    for place, row in out.csv(file, "Behavior", "ImageFileName", "BehaviorID"):
        with out.record(place, file):
            name = words(row, "ImageFileName")
            behaviour = words(row, "Behavior")
            caption = optional(row, "ImageDescription")
            beside = file.parent.relative_to(root) / name
            out.add(
                Sample(
                    id=words(row, "BehaviorID"),
                    text=behaviour,
                    images=(out.image(beside, "ImageFileName", *(f"{folder}/{name}" for folder in FOLDERS)),),
                    split="test",
                    group=name,
                    text_only=in_words(behaviour, caption),
                    caption=caption,
                    label_joint="unsafe",
                    category=optional(row, "SemanticCategory") or "",
                    subcategory=optional(row, "FunctionalCategory") or "",
                    meta={"redacted": optional(row, "RedactedImageDescription"), "tags": optional(row, "Tags")},
                ),
                place,
            )
    return out.dataset()


CARD = register(
    DatasetCard(
        name="harmbench",
        title="HarmBench (multimodal behaviours)",
        citation="Mazeika et al., HarmBench, ICML 2024, arXiv 2402.04249",
        licence="MIT",
        homepage="https://github.com/centerforaisafety/HarmBench",
        download="data/behavior_datasets and data/multimodal_behavior_images of github.com/centerforaisafety/HarmBench",
        files=(f"{FILE}|data/behavior_datasets/{FILE}",),
        counts={"samples": 110},
        loader=load,
        source="third party",
    )
)
