"""RTVLM: red teaming of vision-language models (used by SafeVLM, arXiv 2405.13581) [third party].

Hub set ``MMInstruction/RedTeamingVLM``: ``data/{Subset}/{file}.jsonl`` with the pictures in ``img/`` beside it.  Read
at second hand: fields ``index``, ``instruction`` and ``refused_to_answer``; the picture is ``img/{index}.jpg`` where
no field names it.  "Refuse to Answer" is unsafe, "Safe to Answer" safe; "with Caution" stays unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DataError
from .cards import DatasetCard, register
from .collect import Collector, FieldError, fields, optional, words
from .dataset import Dataset
from .images import ImageFile
from .reading import read_table
from .sample import Label, Sample

SUFFIXES = (".jpg", ".png", ".jpeg", ".webp")


def _label(row: dict[str, Any]) -> Label:
    said = (optional(row, "refused_to_answer") or optional(row, "label") or "").casefold()
    return "unsafe" if said.startswith("refuse") else "safe" if said.startswith("safe") else "unknown"


def _picture(out: Collector, row: dict[str, Any], folder: Path) -> ImageFile:
    named = optional(row, "image") or optional(row, "image_path")
    if named:
        return out.image(folder / named, "image", folder / "img" / Path(named).name)
    index = words(row, "index")
    for suffix in SUFFIXES:
        if out.has(folder / "img" / f"{index}{suffix}"):
            return out.image(folder / "img" / f"{index}{suffix}", "index")
    raise FieldError(f"no picture {index!r} with suffix {', '.join(SUFFIXES)} in {folder / 'img'}", "index")


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """Every .jsonl (or .json) below ``data/``; the folder's name is the category."""
    out = Collector("rtvlm", root, strict)
    base = root / "data" if (root / "data").is_dir() else root
    files = sorted(path for path in base.rglob("*.json*") if path.suffix in (".jsonl", ".json"))
    if not files:
        raise DataError(f"data set 'rtvlm': no .jsonl file below {base}")
    for file in files:
        folder = file.parent.relative_to(root)
        for place, row in read_table(file):
            with out.record(place, file):
                known = fields(row)
                field = next((name for name in ("instruction", "question", "prompt") if name in known), "instruction")
                text = words(row, field)
                picture = _picture(out, row, folder)
                number = place.rsplit(" ", 1)[-1]
                out.add(
                    Sample(
                        id=f"{file.parent.name}-{file.stem}-{number}",
                        text=text,
                        images=(picture,),
                        split="test",
                        group=f"{folder}/{Path(picture.path).name}",
                        label_joint=_label(row),
                        category=file.parent.name,
                        subcategory=file.stem,
                        meta={"refused_to_answer": optional(row, "refused_to_answer"), "index": optional(row, "index")},
                    ),
                    place,
                )
    return out.dataset()


CARD = register(
    DatasetCard(
        name="rtvlm",
        title="RTVLM: Red Teaming Visual Language Models",
        citation="Li et al., Red Teaming Visual Language Models, ACL Findings 2024, arXiv 2401.12915",
        licence="not stated",
        homepage="https://huggingface.co/datasets/MMInstruction/RedTeamingVLM",
        download="hub data set MMInstruction/RedTeamingVLM",
        files=("data/*/*.jsonl",),
        counts={},
        loader=load,
        source="third party",
        aliases=("redteamingvlm",),
        note="fields read at second hand; 'Proceed with Caution' is left unknown",
    )
)
