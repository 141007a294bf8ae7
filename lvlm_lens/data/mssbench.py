"""MSSBench: the same query with a safe and with an unsafe situation (arXiv 2410.06172) [official loader].

``combined.json`` (the authors' script opens ``combine.json``; either is taken) holds the lists ``chat`` and
``embodied``; pictures lie in ``chat/`` and ``embodied/``.  Each query becomes two samples, one on each picture,
that are counterfactuals of each other: the best matched pairs there are.  A situation is unsafe only for what is
asked, so picture and words are labelled safe and the joint label differs (SSS against SSU).

An embodied record gives instructions for the safe and for the unsafe picture in turn; where their words differ the
pair differs in text as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from .cards import DatasetCard, register
from .collect import Collector, FieldError, fields, in_words, optional, value, words
from .dataset import Dataset
from .images import ImageSource
from .reading import read_json
from .sample import Sample

SIDES: tuple[Literal["safe", "unsafe"], ...] = ("safe", "unsafe")


def _texts(row: Any, *fields: str) -> list[str]:
    """The first of the fields that is there, as a list of texts."""
    for field in fields:
        found = row.get(field) if isinstance(row, dict) else None
        if found:
            listed = [found] if isinstance(found, str) else found
            if not isinstance(listed, list) or not all(isinstance(text, str) and text.strip() for text in listed):
                raise FieldError(f"field {field!r} holds something that is not text", field)
            return [text.strip() for text in listed]
    value(row, fields[0])  # raises, naming the fields there are
    raise FieldError(f"field {fields[0]!r} is empty", fields[0])


def _chat(out: Collector, row: Any, number: int, file: Path) -> None:
    queries = _texts(row, "queries")
    for side in SIDES:
        with out.record(f"chat record {number}, {side} picture", file):
            picture = out.image(
                Path("chat") / words(row, f"{side}_image_path"), f"{side}_image_path", words(row, f"{side}_image_path")
            )
            caption = optional(row, "unsafe_image") if side == "unsafe" else None
            for index, query in enumerate(queries):
                out.add(
                    _asked(
                        f"chat-{number}", index, side, query, picture, caption,
                        subcategory=str(row.get("Type") or ""),
                        warning=optional(row, "reason") if side == "unsafe" else None,
                        meta={"intent": str(row.get("intent") or "")},
                    )
                )  # fmt: skip


def _embodied(out: Collector, row: Any, number: int, file: Path) -> None:
    for side in SIDES:
        with out.record(f"embodied record {number}, {side} picture", file):
            picture = out.image(Path("embodied") / words(row, side), side, words(row, side))
            caption = optional(row, f"observation_{side}")
            for index, text in enumerate(_texts(row, f"{side}_instructions", f"{side}_instruction")):
                out.add(
                    _asked(
                        f"embodied-{number}", index, side, text, picture, caption,
                        subcategory=str(row.get("category") or ""),
                        meta={"task": str(row.get("task") or "")},
                    )
                )  # fmt: skip


def _asked(
    scene: str, index: int, side: Any, text: str, picture: ImageSource, caption: str | None, **more: Any
) -> Sample:
    """One query about the safe or the unsafe picture of a scene; the other picture's is its counterfactual."""
    name = f"{scene}-{index}"
    return Sample(
        id=f"{name}-{side}",
        text=text,
        images=(picture,),
        split="test",
        group=scene,
        counterfactual=f"{name}-{'unsafe' if side == 'safe' else 'safe'}",
        text_only=in_words(text, caption),
        caption=caption,
        label_image="safe",
        label_text="safe",
        label_joint=side,
        category=scene.partition("-")[0],
        **more,
    )


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """Both tracks, or subset ``chat`` or ``embodied``."""
    out = Collector("mssbench", root, strict)
    file = out.file("combined.json", "combine.json", "data/combined.json", "data/combine.json")
    out.root = file.parent
    readers = {"chat": _chat, "embodied": _embodied}
    for place, row in read_json(file):
        track = place[0]
        if track not in readers or len(place) != 2:
            with out.record(str(track), file):
                found = fields(row)  # a damaged end of the file raises its own reason here
                raise FieldError(f"neither the list 'chat' nor 'embodied', but {', '.join(found) or 'nothing'}")
            continue
        if subset in (None, track):
            with out.record(f"{track} record {place[1]}", file):
                readers[track](out, row, place[1], file)
    return out.dataset()


CARD = register(
    DatasetCard(
        name="mssbench",
        title="MSSBench: Multimodal Situational Safety",
        citation="Zhou et al., Multimodal Situational Safety, ICLR 2025, arXiv 2410.06172",
        licence="code MIT; data not stated",
        homepage="https://mssbench.github.io",
        download="the data archive linked from github.com/eric-ai-lab/MSSBench (hub data set kzhou35/mssbench)",
        files=(
            "combined.json|combine.json|data/combined.json|data/combine.json",
            "chat/|data/chat/",
            "embodied/|data/embodied/",
        ),
        counts={"samples": 1820, "category=chat": 1200, "category=embodied": 620},
        loader=load,
        subsets=("chat", "embodied"),
    )
)
