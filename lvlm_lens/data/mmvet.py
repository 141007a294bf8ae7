"""MM-Vet: integrated abilities, open answers (arXiv 2308.02490) [official].

``mm-vet.json`` is an object of ``imagename, question, answer, capability[]``; an answer may hold ``<AND>`` and
``<OR>`` between parts.  218 questions about 200 pictures in ``images/``.
"""

from __future__ import annotations

from pathlib import Path

from .cards import DatasetCard, register
from .collect import Collector, FieldError, words
from .dataset import Dataset
from .reading import json_place, read_json
from .sample import Sample


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """All questions; ``category`` joins the capabilities with ``+``."""
    out = Collector("mmvet", root, strict)
    file = out.file("mm-vet.json", "mm-vet/mm-vet.json")
    beside = file.parent.relative_to(root)
    for place, row in read_json(file):
        with out.record(json_place(place), file):
            name = words(row, "imagename")
            capability = row.get("capability") or []
            if not isinstance(capability, list) or not all(isinstance(item, str) for item in capability):
                raise FieldError("'capability' is not a list of words", "capability")
            out.add(
                Sample(
                    id=str(place[-1]),
                    text=words(row, "question"),
                    images=(out.image(beside / "images" / name, "imagename", beside / name),),
                    split="test",
                    group=name,
                    label_joint="safe",
                    category="+".join(sorted(capability)),
                    answer=words(row, "answer"),
                ),
                json_place(place),
            )
    return out.dataset()


CARD = register(
    DatasetCard(
        name="mmvet",
        title="MM-Vet",
        citation="Yu et al., MM-Vet, ICML 2024, arXiv 2308.02490",
        licence="code Apache-2.0",
        homepage="https://github.com/yuweihao/MM-Vet",
        download="mm-vet.zip of github.com/yuweihao/MM-Vet",
        files=("mm-vet.json|mm-vet/mm-vet.json", "images/|mm-vet/images/"),
        counts={"samples": 218},
        loader=load,
        aliases=("mm-vet",),
        note="a measure of utility: labelled safe by convention, not by its authors",
    )
)
