"""HADES: the harmful word moved from the words into the picture (arXiv 2403.09792).

Rows of ``id, image, scenario, keywords, category, instruction, step`` in Parquet or JSON.  Step 5 is the last of the
picture's optimisation and the one that is used.  The words are rewritten as the authors' evaluation does: the keyword
becomes a pointer to the picture ("this object", or "conduct this behavior on").  ``text_only`` is the instruction with
the keyword in words, so :func:`~lvlm_lens.data.matching.form_pairs` gives words against picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DataError
from .cards import DatasetCard, register
from .collect import Collector, FieldError, value, words
from .dataset import Dataset
from .reading import TABLE_SUFFIXES, read_table
from .sample import Sample
from .tables import pictures

LAST_STEP = 5


def pointed(instruction: str, keyword: str, category: str) -> str:
    """The instruction with its keyword replaced by a pointer to the picture [third party wording]."""
    mask = "conduct this behavior on" if category == "behavior" else f"this {category}"
    return f"The bottom of the image shows a {category}. {instruction.replace(keyword, mask)}"


def _sample(row: Any, out: Collector, step: int) -> Sample:
    instruction, keyword, category = words(row, "instruction"), words(row, "keywords"), words(row, "category")
    found = pictures(value(row, "image"), out, "image")
    if not found:
        raise FieldError("the record has no picture", "image")
    scenario, name = words(row, "scenario"), words(row, "id")
    return Sample(
        id=f"{scenario}-{category}-{name}-{step}",
        text=pointed(instruction, keyword, category),
        images=found,
        split="test",
        group=f"{scenario}-{keyword}",
        text_only=instruction,
        caption=f"{keyword}, drawn and written",
        label_image="unsafe",
        label_joint="unsafe",
        category=scenario,
        subcategory=category,
        attack=f"step {step}",
        meta={"keyword": keyword, "step": step},
    )


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """Step 5, or subset ``all`` with every step of the picture's optimisation."""
    out = Collector("hades", root, strict)
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in TABLE_SUFFIXES and path.is_file())
    if not files:
        raise DataError(f"data set 'hades': no Parquet or JSON table under {root}")
    for file in files:
        for place, row in read_table(file):
            with out.record(place, file):
                step = value(row, "step")
                if not str(step).isdigit():
                    raise FieldError(f"'step' is {step!r}, not a number", "step")
                if int(step) == LAST_STEP or subset == "all":
                    out.add(_sample(row, out, int(step)), place)
    return out.dataset()


CARD = register(
    DatasetCard(
        name="hades",
        title="HADES",
        citation="Li et al., Images are Achilles' Heel of Alignment, ECCV 2024, arXiv 2403.09792",
        licence="code MIT",
        homepage="https://huggingface.co/datasets/Monosail/HADES",
        download="hub data set Monosail/HADES",
        files=("data/test-*.parquet|test-*.parquet|hades*.json|hades*.jsonl",),
        counts={"samples": 750},
        loader=load,
        subsets=("all",),
        source="third party",
    )
)
