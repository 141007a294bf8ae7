"""LLaVA-Bench (in the wild): 60 open questions about 24 pictures (arXiv 2304.08485) [official].

``questions.jsonl`` (``question_id, image, text, category``), ``context.jsonl`` (``id, image, caption``) and
``answers_gpt4.jsonl`` (``question_id, text``); pictures in ``images/``.
"""

from __future__ import annotations

from pathlib import Path

from .cards import DatasetCard, register
from .collect import Collector, in_words, optional, words
from .dataset import Dataset
from .reading import read_jsonl
from .sample import Sample


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """All questions; the caption is that of the picture's context, the reference GPT-4's answer."""
    out = Collector("llava_bench", root, strict)
    file = out.file("questions.jsonl")
    captions: dict[str, str] = {}
    references: dict[str, str] = {}
    for name, field, key, into in (
        ("context.jsonl", "caption", "image", captions),
        ("answers_gpt4.jsonl", "text", "question_id", references),
    ):
        if not (root / name).is_file():
            out.notes.append(f"{name} is not there: no {field}")
            continue
        for place, row in read_jsonl(root / name):
            with out.record(place, root / name):
                into[words(row, key)] = words(row, field)
    for place, row in read_jsonl(file):
        with out.record(place, file):
            name, number = words(row, "image"), words(row, "question_id")
            text = words(row, "text")
            out.add(
                Sample(
                    id=number,
                    text=text,
                    images=(out.image(Path("images") / name, "image", name),),
                    split="test",
                    group=name,
                    text_only=in_words(text, captions.get(name)),
                    caption=captions.get(name),
                    label_joint="safe",
                    category=optional(row, "category") or "",
                    reference=references.get(number),
                ),
                place,
            )
    return out.dataset()


CARD = register(
    DatasetCard(
        name="llava_bench",
        title="LLaVA-Bench (in the wild)",
        citation="Liu et al., Visual Instruction Tuning, NeurIPS 2023, arXiv 2304.08485",
        licence="not stated",
        homepage="https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild",
        download="hub data set liuhaotian/llava-bench-in-the-wild",
        files=("questions.jsonl", "images/"),
        counts={"samples": 60},
        loader=load,
        aliases=("llava-bench", "llava-bench-in-the-wild"),
        note="a measure of utility: labelled safe by convention, not by its authors",
    )
)
