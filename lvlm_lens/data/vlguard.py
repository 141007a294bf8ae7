"""VLGuard: unsafe pictures, and safe pictures with a safe and an unsafe instruction (arXiv 2402.02207) [official].

``train.json`` and ``test.json`` are lists of ``id, image, safe, harmful_category, harmful_subcategory, instr-resp[]``;
pictures lie in ``train/`` and ``test/``.  An unsafe picture has one ``instruction``; a safe one has entries with
``safe_instruction`` and ``unsafe_instruction``, which become counterfactuals of each other.  Subsets as the authors
name them: ``unsafes``, ``safe_unsafes``, ``safe_safes``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DataError
from .cards import DatasetCard, register
from .collect import Collector, FieldError, optional, value, words
from .dataset import Dataset
from .reading import json_place, read_json
from .sample import Label, Sample

KINDS: dict[str, tuple[str, Label, Label, Label]] = {
    "unsafes": ("instruction", "unsafe", "unknown", "unsafe"),
    "safe_unsafes": ("unsafe_instruction", "safe", "unsafe", "unsafe"),
    "safe_safes": ("safe_instruction", "safe", "safe", "safe"),
}
"""Subset: the field of its instruction, and the labels of picture, words and both."""


def _turns(row: Any) -> dict[str, dict[str, Any]]:
    """The entries of ``instr-resp`` by the subset to which their instruction belongs."""
    listed = value(row, "instr-resp")
    if not isinstance(listed, list) or not all(isinstance(turn, dict) for turn in listed):
        raise FieldError("'instr-resp' is not a list of objects", "instr-resp")
    safe = value(row, "safe")
    if not isinstance(safe, bool):
        raise FieldError(f"'safe' is {safe!r}, not true or false", "safe")
    kinds = ("safe_unsafes", "safe_safes") if safe else ("unsafes",)
    found = {}
    for kind in kinds:
        turn = next((turn for turn in listed if KINDS[kind][0] in turn), None)
        if turn is not None:
            found[kind] = turn
    if not found:
        raise FieldError(f"'instr-resp' has none of {', '.join(KINDS[kind][0] for kind in kinds)}", "instr-resp")
    return found


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """Both splits whose file is there, or one of the three subsets."""
    out = Collector("vlguard", root, strict)
    other = {"safe_unsafes": "safe_safes", "safe_safes": "safe_unsafes"}
    splits = [split for split in ("train", "test") if (root / f"{split}.json").is_file()]
    if not splits:
        out.file("train.json", "test.json")  # raises
    for split in splits:
        file = root / f"{split}.json"
        for place, row in read_json(file):
            with out.record(json_place(place), file):
                turns = _turns(row)
                name = f"{split}-{optional(row, 'id') or place[0]}"
                picture = out.image(Path(split) / words(row, "image"), "image", words(row, "image"))
                for kind, turn in turns.items():
                    if subset not in (None, kind):
                        continue
                    field, image, text, joint = KINDS[kind]
                    out.add(
                        Sample(
                            id=f"{name}-{kind}",
                            text=words(turn, field),
                            images=(picture,),
                            split=split,
                            group=name,
                            counterfactual=f"{name}-{other[kind]}" if kind in other else None,
                            label_image=image,
                            label_text=text,
                            label_joint=joint,
                            category=optional(row, "harmful_category") or "",
                            subcategory=optional(row, "harmful_subcategory") or "",
                            reference=optional(turn, "response"),
                            meta={"subset": kind},
                        ),
                        f"{split} {json_place(place)}",
                    )
    if len(splits) == 1:
        out.notes.append(f"only {splits[0]}.json is there")
    if not out.samples and not out.problems:
        raise DataError(f"data set 'vlguard': no record of subset {subset!r}")
    return out.dataset()


CARD = register(
    DatasetCard(
        name="vlguard",
        title="VLGuard",
        citation="Zong et al., Safety Fine-Tuning at (Almost) No Cost, ICML 2024, arXiv 2402.02207",
        licence="gated",
        homepage="https://github.com/ys-zong/VLGuard",
        download="hub data set ys-zong/VLGuard (gated): train.json, test.json, and both archives unpacked",
        files=("train.json", "test.json", "train/", "test/"),
        counts={"groups": 3000},
        loader=load,
        subsets=tuple(KINDS),
    )
)
