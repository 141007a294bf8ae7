"""AdvBench: harmful behaviours with the start of a compliant answer (arXiv 2307.15043) [official].

``harmful_behaviors.csv``: ``goal, target``; 520 rows, text only, all unsafe.
"""

from __future__ import annotations

from pathlib import Path

from .cards import DatasetCard, register
from .collect import Collector, optional, words
from .dataset import Dataset
from .sample import Sample


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """All goals; ``meta['target']`` is the compliant start."""
    out = Collector("advbench", root, strict)
    file = out.file("harmful_behaviors.csv", "data/advbench/harmful_behaviors.csv")
    for number, (place, row) in enumerate(out.csv(file, "goal")):
        with out.record(place, file):
            out.add(
                Sample(
                    id=str(number),
                    text=words(row, "goal"),
                    split="test",
                    group=str(number),
                    label_text="unsafe",
                    label_joint="unsafe",
                    meta={"target": optional(row, "target")},
                ),
                place,
            )
    return out.dataset()


CARD = register(
    DatasetCard(
        name="advbench",
        title="AdvBench (harmful behaviours)",
        citation="Zou et al., Universal and Transferable Adversarial Attacks, arXiv 2307.15043",
        licence="MIT",
        homepage="https://github.com/llm-attacks/llm-attacks",
        download="data/advbench/harmful_behaviors.csv of github.com/llm-attacks/llm-attacks",
        files=("harmful_behaviors.csv|data/advbench/harmful_behaviors.csv",),
        counts={"samples": 520},
        loader=load,
    )
)
