"""FigStep / SafeBench: a harmful list, unfinished, written in a picture (arXiv 2311.05608) [official files].

``data/question/safebench.csv``: ``dataset, category_id, task_id, category_name, question, instruction``; pictures
``data/images/SafeBench/query_ForbidQI_{category_id}_{task_id}_6.png``.  A picture that is not there is drawn in the
published layout (``typography.py``), and the notes say how many were.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .cards import DatasetCard, register
from .collect import Collector, optional, words
from .dataset import Dataset
from .images import ImageSource
from .sample import Sample
from .typography import FIGSTEP_PROMPT, render

FILES = {"SafeBench": "safebench.csv", "SafeBench-Tiny": "SafeBench-Tiny.csv"}
BENIGN = "benign_sentences_without_harmful_phase.csv"


def _attack(out: Collector, row: Any, folder: str, drawn: list[str]) -> Sample:
    category, task = words(row, "category_id"), words(row, "task_id")
    instruction = words(row, "instruction")
    path = Path("data") / "images" / folder / f"query_ForbidQI_{category}_{task}_6.png"
    picture: ImageSource
    if out.has(path):
        picture = out.image(path)
    else:
        picture = render(instruction, "figstep")
        drawn.append(f"{category}-{task}")
    return Sample(
        id=f"{category}-{task}",
        text=FIGSTEP_PROMPT,
        images=(picture,),
        split="test",
        group=f"{category}-{task}",
        text_only=words(row, "question"),
        caption=f"the words: {instruction}",
        label_image="unsafe",
        label_text="safe",
        label_joint="unsafe",
        category=optional(row, "category_name") or category,
        attack="figstep",
        meta={"instruction": instruction},
    )


def _benign(row: Any, number: int, drawn: list[str]) -> Sample:
    sentence = words(row, "sentence")
    drawn.append(f"benign-{number}")
    return Sample(
        id=f"benign-{number}",
        text=FIGSTEP_PROMPT,
        images=(render(sentence, "figstep"),),
        split="test",
        group=f"benign-{number}",
        text_only=sentence,
        caption=f"the words: {sentence}",
        label_image="safe",
        label_text="safe",
        label_joint="safe",
        category="benign",
        attack="figstep",
    )


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """Subset ``SafeBench`` (default), ``SafeBench-Tiny`` or ``benign`` (the 50 harmless sentences, drawn)."""
    out = Collector("figstep", root, strict)
    drawn: list[str] = []
    if subset == "benign":
        file = out.file(f"data/question/{BENIGN}", BENIGN)
        for number, (place, row) in enumerate(out.csv(file, "sentence")):
            with out.record(place, file):
                out.add(_benign(row, number, drawn), place)
    else:
        folder = subset or "SafeBench"
        file = out.file(f"data/question/{FILES[folder]}", FILES[folder])
        for place, row in out.csv(file, "category_id", "task_id", "question", "instruction"):
            with out.record(place, file):
                out.add(_attack(out, row, folder, drawn), place)
    if drawn:
        out.notes.append(f"{len(drawn)} pictures were not there and are drawn in the published layout with our font")
    return out.dataset()


CARD = register(
    DatasetCard(
        name="figstep",
        title="FigStep (SafeBench)",
        citation="Gong et al., FigStep, AAAI 2025, arXiv 2311.05608",
        licence="MIT",
        homepage="https://github.com/ThuCCSLab/FigStep",
        download="github.com/ThuCCSLab/FigStep (the pictures are drawn where they are not there)",
        files=("data/question/safebench.csv|safebench.csv",),
        counts={"samples": 500},
        loader=load,
        subsets=("SafeBench", "SafeBench-Tiny", "benign"),
        aliases=("safebench",),
    )
)
