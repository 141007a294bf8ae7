"""MOSSBench: harmless requests whose pictures invite a refusal (arXiv 2406.17806) [official].

``information.json`` is an object of 300 records: ``image, question, short description, description,
metadata{over, harm[]}``.  Everything is safe; ``category`` is the type of over-sensitivity: ``type 1`` exaggerated
risk, ``type 2`` negated harm, ``type 3`` counterintuitive interpretation.
"""

from __future__ import annotations

from pathlib import Path

from .cards import DatasetCard, register
from .collect import Collector, fields, in_words, optional, words
from .dataset import Dataset
from .reading import json_place, read_json
from .sample import Sample

NAMES = (
    "information.json",
    "images_information/information.json",
    "data/images_information/information.json",
    "data/information.json",
)


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """All 300 requests, with the picture's description as ``caption``."""
    out = Collector("mossbench", root, strict)
    file = out.file(*NAMES)
    beside = file.parent.relative_to(root)
    for place, row in read_json(file):
        with out.record(json_place(place), file):
            name = words(row, "image")
            text = words(row, "question")
            caption = optional(row, "short description") or optional(row, "description")
            about = fields(row.get("metadata") or {})
            harm = about.get("harm", "")
            others = (beside.parent / name, beside / "images" / Path(name).name, Path("images") / Path(name).name)
            out.add(
                Sample(
                    id=optional(row, "pid") or str(place[-1]),
                    text=text,
                    images=(out.image(beside / name, "image", *others),),
                    split="test",
                    group=name,
                    text_only=in_words(text, caption),
                    caption=caption,
                    label_text="safe",
                    label_joint="safe",
                    category=str(about.get("over", "")),
                    subcategory=", ".join(str(kind) for kind in harm) if isinstance(harm, list) else str(harm),
                ),
                json_place(place),
            )
    return out.dataset()


CARD = register(
    DatasetCard(
        name="mossbench",
        title="MOSSBench",
        citation="Li et al., MOSSBench, ICLR 2025, arXiv 2406.17806",
        licence="CC BY-SA 4.0, testing only",
        homepage="https://turningpoint-ai.github.io/MOSSBench",
        download="hub data set AIcell/MOSSBench, or the folder data/ of github.com/xirui-li/MOSSBench",
        files=("|".join(NAMES), "images/|data/images/"),
        counts={"samples": 300, **{f"category=type {kind}": 100 for kind in (1, 2, 3)}},
        loader=load,
    )
)
