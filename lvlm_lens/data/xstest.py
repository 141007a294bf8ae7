"""XSTest: safe prompts that look unsafe, each type with its unsafe contrasts (arXiv 2308.01263) [official].

``xstest_prompts.csv``: ``id, prompt, type, label, focus, note``; 250 safe, 200 unsafe.  The contrasts of a type stand
in the same order as the type, so prompts are paired by type and focus, in order.  Two safe types
(``nons_group_real_discr``, ``privacy_public``) have no contrasts of their own and stay unpaired.

The file ships with the package, unchanged, in ``embedded/xstest/`` beside its licence.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from .cards import DatasetCard, register
from .collect import Collector, FieldError, optional, words
from .dataset import Dataset
from .labels import as_label
from .sample import Sample

CONTRAST = {
    "homonyms": "contrast_homonyms",
    "figurative_language": "contrast_figurative_language",
    "safe_targets": "contrast_safe_targets",
    "safe_contexts": "contrast_safe_contexts",
    "definitions": "contrast_definitions",
    "real_group_nons_discr": "contrast_discr",
    "historical_events": "contrast_historical_events",
    "privacy_fictional": "contrast_privacy",
}


def _pair(samples: list[Sample]) -> list[Sample]:
    """Link the k-th prompt of a type and focus with the k-th contrast of that focus; both get one group.

    What is left over, where the two name their focus differently, is linked by order within the type.
    """
    partner: dict[str, str] = {}
    for same_focus in (True, False):
        waiting: dict[tuple[str, str], list[Sample]] = defaultdict(list)
        for sample in samples:
            if sample.category in CONTRAST.values() and sample.id not in partner:
                waiting[sample.category, sample.subcategory if same_focus else ""].append(sample)
        for sample in samples:
            if sample.category not in CONTRAST or sample.id in partner:
                continue
            contrasts = waiting[CONTRAST[sample.category], sample.subcategory if same_focus else ""]
            if contrasts:
                other = contrasts.pop(0)
                partner[sample.id], partner[other.id] = other.id, sample.id
    return [
        replace(sample, counterfactual=partner[sample.id], group=min(sample.id, partner[sample.id], key=int))
        if sample.id in partner
        else replace(sample, group=sample.id)
        for sample in samples
    ]


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """All prompts, or subset ``safe`` or ``unsafe``."""
    out = Collector("xstest", root, strict)
    file = out.file("xstest_prompts.csv", "xstest_v2_prompts.csv", "data/xstest_prompts.csv")
    for place, row in out.csv(file, "prompt", "type"):
        with out.record(place, file):
            kind = words(row, "type")
            said = optional(row, "label")  # the older file has no label column: contrasts are the unsafe ones
            label = as_label(said) if said else "unsafe" if kind.startswith("contrast_") else "safe"
            name = optional(row, "id") or place.removeprefix("line ")
            if not name.isdigit():
                raise FieldError(f"id {name!r} is not a number", "id")
            out.add(
                Sample(
                    id=name,
                    text=words(row, "prompt"),
                    split="test",
                    label_text=label,
                    label_joint=label,
                    category=kind,
                    subcategory=optional(row, "focus") or "",
                    meta={"note": optional(row, "note")},
                ),
                place,
            )
    out.samples = [sample for sample in _pair(out.samples) if subset in (None, sample.label_joint)]
    return out.dataset()


CARD = register(
    DatasetCard(
        name="xstest",
        title="XSTest",
        citation="Röttger et al., XSTest, NAACL 2024, arXiv 2308.01263",
        licence="CC BY 4.0",
        homepage="https://github.com/paul-rottger/xstest",
        download="xstest_prompts.csv of github.com/paul-rottger/xstest",
        files=("xstest_prompts.csv|xstest_v2_prompts.csv|data/xstest_prompts.csv",),
        counts={"samples": 450, "label_joint=safe": 250, "label_joint=unsafe": 200},
        loader=load,
        subsets=("safe", "unsafe"),
        embedded=Path(__file__).parent / "embedded" / "xstest",
    )
)
