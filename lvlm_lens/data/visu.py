"""ViSU-Text: a harmless caption and its harmful counterpart (of Safe-CLIP and HySAC, arXiv 2503.12127) [official].

``{split}.json`` (or ``ViSU-Text_{split}.json``) is an object keyed by number of ``safe, nsfw, tag, coco_id``.  Each
record gives two samples that are counterfactuals of each other.  The pictures are private, so all is text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..errors import DataError
from .cards import DatasetCard, register
from .collect import Collector, optional, words
from .dataset import Dataset
from .reading import json_place, read_json
from .sample import Sample

SIDES: tuple[tuple[str, Literal["safe", "unsafe"]], ...] = (("safe", "safe"), ("nsfw", "unsafe"))


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """Every split whose file is there."""
    out = Collector("visu", root, strict)
    seen = False
    for split in ("train", "validation", "test"):
        names = [f"{folder}{stem}.json" for folder in ("", "data/") for stem in (split, f"ViSU-Text_{split}")]
        file = next((root / name for name in names if (root / name).is_file()), None)
        if file is None:
            continue
        seen = True
        for place, row in read_json(file):
            with out.record(json_place(place), file):
                texts = {field: words(row, field) for field, _ in SIDES}
                for (field, label), other in zip(SIDES, ("nsfw", "safe"), strict=True):
                    out.add(
                        Sample(
                            id=f"{split}-{place[-1]}-{field}",
                            text=texts[field],
                            split=split,
                            group=str(row.get("coco_id") or f"{split}-{place[-1]}"),
                            counterfactual=f"{split}-{place[-1]}-{other}",
                            label_text=label,
                            label_joint=label,
                            category=optional(row, "tag") or "",
                            meta={"coco_id": row.get("coco_id")},
                        ),
                        json_place(place),
                    )
    if not seen:
        raise DataError(f"data set 'visu': none of train.json, validation.json, test.json under {root}")
    return out.dataset()


CARD = register(
    DatasetCard(
        name="visu",
        title="ViSU-Text",
        citation="Poppi et al., Safe-CLIP, ECCV 2024, arXiv 2311.16254; used by HySAC, arXiv 2503.12127",
        licence="non-commercial",
        homepage="https://huggingface.co/datasets/aimagelab/ViSU-Text",
        download="hub data set aimagelab/ViSU-Text (gated)",
        files=("test.json|ViSU-Text_test.json|data/test.json|data/ViSU-Text_test.json",),
        counts={},
        loader=load,
        aliases=("visu-text",),
        note="captions, not requests: a harmful caption is labelled unsafe; the pictures are private",
    )
)
