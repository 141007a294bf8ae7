"""SIUO: harmless picture, harmless words, unsafe together (arXiv 2406.15279) [official files].

``siuo_gen.json`` and ``siuo_mcqa.json`` are lists of 167 records, with images beside them in ``images/``.  Every
record is SSU.  The published category is kept; ``subcategory`` is the letter code of the image's name
(S self-harm, D, M, I, C, DS, R, IM, P), which the counts are checked by.
"""

from __future__ import annotations

import re
from pathlib import Path

from .cards import DatasetCard, register
from .collect import Collector, fields, optional, value, words
from .dataset import Dataset
from .reading import json_place, read_json
from .sample import Sample

COUNTS = {"S": 19, "D": 18, "M": 20, "I": 18, "C": 16, "DS": 18, "R": 20, "IM": 17, "P": 21}
"""Published records by the letter code of the image's name."""


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """Subset ``gen`` (open questions, default) or ``mcqa`` (multiple choice: ``options`` and ``answer``)."""
    kind = subset or "gen"
    out = Collector("siuo", root, strict)
    file = out.file(f"siuo_{kind}.json", f"data/siuo_{kind}.json")
    folder = file.parent.relative_to(root)
    for place, row in read_json(file):
        with out.record(json_place(place), file):
            name = words(row, "image").lstrip("/")
            code = re.match(r"[A-Z]+", Path(name).name)
            options = fields(row.get("options") or {})
            out.add(
                Sample(
                    id=words(row, "question_id"),
                    text=words(row, "question"),
                    images=(out.image(folder / "images" / name, "image", folder / name),),
                    split="test",
                    group=Path(name).stem,
                    label_image="safe",
                    label_text="safe",
                    label_joint="unsafe",
                    category=words(row, "category"),
                    subcategory=code.group() if code else "",
                    reference=optional(row, "reference_answer"),
                    warning=optional(row, "safety_warning"),
                    options=tuple(f"{letter}. {text}" for letter, text in options.items()),
                    answer=str(value(row, "correct_option")) if kind == "mcqa" else None,
                ),
                json_place(place),
            )
    return out.dataset()


CARD = register(
    DatasetCard(
        name="siuo",
        title="SIUO: Safe Inputs but Unsafe Output",
        citation="Wang et al., Safe Inputs but Unsafe Output, NAACL Findings 2025, arXiv 2406.15279",
        licence="CC BY-NC 4.0",
        homepage="https://sinwang20.github.io/SIUO",
        download="hub data set sinwang/SIUO, or the folder data/ of github.com/sinwang20/SIUO with its images",
        files=("siuo_gen.json|data/siuo_gen.json", "siuo_mcqa.json|data/siuo_mcqa.json", "images/|data/images/"),
        counts={
            "samples": 167,
            **{f"subcategory={code}": count for code, count in COUNTS.items()},
        },
        loader=load,
        subsets=("gen", "mcqa"),
    )
)
