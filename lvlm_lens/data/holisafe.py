"""HoliSafe-Bench: all combinations of safe and unsafe picture and words (arXiv 2506.04704) [third party].

``holisafe_bench.json``: ``id, image, query, category, subcategory, type, image_safe``; ``type`` is three letters for
picture, words and both (SUU, USU, SSU, UUU, SSS).  Several queries share a picture, which is the group.
"""

from __future__ import annotations

from pathlib import Path

from .cards import DatasetCard, register
from .collect import Collector, FieldError, optional, words
from .dataset import Dataset
from .reading import json_place, read_json
from .sample import Label, Sample

TYPES = ("SSS", "SSU", "SUU", "USU", "UUU")
LETTER: dict[str, Label] = {"S": "safe", "U": "unsafe"}


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """All queries, or those of one type."""
    out = Collector("holisafe", root, strict)
    file = out.file("holisafe_bench.json", "data/holisafe_bench.json")
    beside = file.parent.relative_to(root)
    for place, row in read_json(file):
        with out.record(json_place(place), file):
            kind = words(row, "type").upper()
            if kind not in TYPES:
                raise FieldError(f"type {kind!r} is none of {', '.join(TYPES)}", "type")
            if subset not in (None, kind):
                continue
            name = words(row, "image")
            image, text, joint = (LETTER[letter] for letter in kind)
            out.add(
                Sample(
                    id=words(row, "id"),
                    text=words(row, "query"),
                    images=(out.image(beside / "images" / name, "image", beside / name),),
                    split="test",
                    group=name,
                    label_image=image,
                    label_text=text,
                    label_joint=joint,
                    category=optional(row, "category") or "",
                    subcategory=optional(row, "subcategory") or "",
                    meta={"type": kind},
                ),
                json_place(place),
            )
    return out.dataset()


CARD = register(
    DatasetCard(
        name="holisafe",
        title="HoliSafe-Bench",
        citation="Lee et al., HoliSafe, arXiv 2506.04704",
        licence="gated, non-commercial",
        homepage="https://github.com/youngwanLEE/holisafe",
        download="hub data set etri-vilab/holisafe-bench (gated)",
        files=("holisafe_bench.json|data/holisafe_bench.json", "images/|data/images/"),
        counts={"samples": 4031},
        loader=load,
        subsets=TYPES,
        source="third party",
        aliases=("holisafe-bench",),
        note="the count of 4,031 and the fields are read at second hand",
    )
)
