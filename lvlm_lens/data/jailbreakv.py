"""JailBreakV-28K: language-model jailbreaks and picture attacks for vision models (arXiv 2404.03027).

A CSV of ``id, jailbreak_query, redteam_query, format, policy, image_path, from, selected_mini, transfer_from_llm``, the
pictures below it in ``figstep/``, ``llm_transfer_attack/`` and ``query_related/``.  ``text_only`` is the plain request
(``redteam_query``), which is also the group: its many attacks must not be split.
"""

from __future__ import annotations

from pathlib import Path

from .cards import DatasetCard, register
from .collect import Collector, optional, words
from .dataset import Dataset
from .sample import Sample

LLM_FORMATS = ("Template", "Persuade", "Logic")


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """All 28,000, or subset ``mini`` (280), ``llm`` (attacks in the words) or ``image`` (in the picture)."""
    out = Collector("jailbreakv", root, strict)
    stems = ("mini_JailBreakV_28K.csv", "JailBreakV_28K.csv") if subset == "mini" else ("JailBreakV_28K.csv",)
    file = out.file(*(f"{folder}{stem}" for stem in stems for folder in ("", "JailBreakV_28K/")))
    beside = file.parent.relative_to(root)
    for place, row in out.csv(file, "jailbreak_query", "redteam_query", "format", "image_path"):
        with out.record(place, file):
            kind = words(row, "format")
            chosen = (optional(row, "selected_mini") or "").casefold() in ("true", "1")
            if subset == "mini" and not file.name.startswith("mini") and not chosen:
                continue
            if subset in ("llm", "image") and (subset == "llm") != (kind in LLM_FORMATS):
                continue
            request = words(row, "redteam_query")
            out.add(
                Sample(
                    id=optional(row, "id") or place.removeprefix("line "),
                    text=words(row, "jailbreak_query"),
                    images=(out.image(beside / words(row, "image_path"), "image_path"),),
                    split="test",
                    group=request,
                    text_only=request,
                    label_text="unsafe" if kind in LLM_FORMATS else "unknown",
                    label_joint="unsafe",
                    category=optional(row, "policy") or "",
                    attack=kind,
                    meta={"from": optional(row, "from"), "mini": chosen, "llm": optional(row, "transfer_from_llm")},
                ),
                place,
            )
    return out.dataset()


CARD = register(
    DatasetCard(
        name="jailbreakv",
        title="JailBreakV-28K",
        citation="Luo et al., JailBreakV, COLM 2024, arXiv 2404.03027",
        licence="MIT",
        homepage="https://huggingface.co/datasets/JailbreakV-28K/JailBreakV-28k",
        download="hub data set JailbreakV-28K/JailBreakV-28k and the linked picture archive",
        files=("JailBreakV_28K.csv|JailBreakV_28K/JailBreakV_28K.csv",),
        counts={"samples": 28000},
        loader=load,
        subsets=("mini", "llm", "image"),
        aliases=("jailbreakv-28k",),
    )
)
