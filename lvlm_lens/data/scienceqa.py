"""ScienceQA: multiple choice questions, many with a picture (arXiv 2209.09513) [official].

``problems.json`` is an object of ``question, choices[], answer`` (an index)``, hint, image, split, subject, topic``;
``pid_splits.json`` lists the ids of each split; pictures are ``images/{split}/{id}/image.png``, some of them absent
from the text-only problems.
"""

from __future__ import annotations

from pathlib import Path

from .cards import DatasetCard, register
from .collect import Collector, FieldError, optional, value, words
from .dataset import Dataset
from .labels import as_split
from .reading import json_place, read_json
from .sample import Sample

LETTERS = "ABCDEFGHIJ"


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """All problems, or subset ``image`` (those with a picture)."""
    out = Collector("scienceqa", root, strict)
    file = out.file("problems.json", "data/scienceqa/problems.json")
    beside = file.parent.relative_to(root)
    splits: dict[str, str] = {}
    for place, name in read_json(out.file(str(beside / "pid_splits.json"))):
        if len(place) == 2 and place[0] in ("train", "val", "test"):  # minival and the like repeat ids
            splits[str(name)] = str(place[0])
    for place, row in read_json(file):
        with out.record(json_place(place), file):
            name = str(place[-1])
            choices, answer = value(row, "choices"), value(row, "answer")
            if not isinstance(answer, int) or not isinstance(choices, list) or not 0 <= answer < len(choices):
                raise FieldError(f"answer {answer!r} is not the index of a choice", "answer")
            split = splits.get(name) or words(row, "split")
            picture = optional(row, "image")
            if subset == "image" and not picture:
                continue
            images = (out.image(beside / "images" / split / name / picture),) if picture else ()
            out.add(
                Sample(
                    id=name,
                    text=words(row, "question"),
                    images=images,
                    split=as_split(split),
                    group=name,
                    label_joint="safe",
                    category=optional(row, "subject") or "",
                    subcategory=optional(row, "topic") or "",
                    options=tuple(f"{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=False)),
                    answer=LETTERS[answer],
                    meta={"hint": optional(row, "hint")},
                ),
                json_place(place),
            )
    return out.dataset()


CARD = register(
    DatasetCard(
        name="scienceqa",
        title="ScienceQA",
        citation="Lu et al., Learn to Explain, NeurIPS 2022, arXiv 2209.09513",
        licence="CC BY-NC-SA 4.0",
        homepage="https://scienceqa.github.io",
        download="problems.json, pid_splits.json and images of github.com/lupantech/ScienceQA",
        files=("problems.json|data/scienceqa/problems.json", "pid_splits.json|data/scienceqa/pid_splits.json"),
        counts={"samples": 21208},
        loader=load,
        subsets=("image",),
        note="a measure of utility: labelled safe by convention, not by its authors",
    )
)
