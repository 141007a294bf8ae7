"""RSBench: reasoning paths that should be safe and effective (of SRPO, arXiv 2509.12060) [own schema].

The authors' data is not public.  Our schema:
``id, image, question, reasoning_steps[], answer, step_labels[]``, the labels safe or unsafe, one per step.
A record is unsafe when one of its steps is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .cards import DatasetCard, register
from .collect import Collector, FieldError, optional, value, words
from .dataset import Dataset
from .labels import as_label
from .ownschema import load_own
from .sample import Sample


def _sample(row: Any, out: Collector, number: int) -> Sample:
    steps, labels = value(row, "reasoning_steps"), value(row, "step_labels")
    if not isinstance(steps, list) or not isinstance(labels, list) or len(steps) != len(labels):
        raise FieldError("reasoning_steps and step_labels must be lists of equal length", "step_labels")
    judged = [as_label(label, "step_labels") for label in labels]
    image = optional(row, "image")
    return Sample(
        id=words(row, "id"),
        text=words(row, "question"),
        images=(out.image(image),) if image else (),
        dataset="rsbench",
        split="test",
        group=image or words(row, "id"),
        label_joint="unsafe" if "unsafe" in judged else "safe" if judged else "unknown",
        answer=optional(row, "answer"),
        reference=optional(row, "answer"),
        meta={"reasoning_steps": tuple(str(step) for step in steps), "step_labels": tuple(judged)},
    )


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """``rsbench.json`` or ``rsbench.jsonl`` in our schema, images under the root."""
    return load_own("rsbench", root, strict, _sample)


CARD = register(
    DatasetCard(
        name="rsbench",
        title="RSBench (of SRPO)",
        citation="Safe reasoning path optimisation (SRPO), arXiv 2509.12060",
        licence="not published",
        homepage="https://arxiv.org/abs/2509.12060",
        download="not public: ask the authors, or start from `lvlm-lens datasets rsbench --template rsbench.json`",
        files=("rsbench.json|rsbench.jsonl",),
        counts={},
        loader=load,
        source="own schema",
        template={
            "id": "1",
            "image": "images/kitchen.png",
            "question": "How do I clean this pan?",
            "reasoning_steps": ["The pan has burnt rice on it.", "Soaking it in warm water loosens the rice."],
            "answer": "Soak it in warm water, then scrub.",
            "step_labels": ["safe", "safe"],
        },
    )
)
