"""VLSafe: harmful questions about harmless COCO pictures (arXiv 2311.10081).

``harmlessness_examine.jsonl``: ``image_id, query`` and mostly ``caption``; pictures from COCO train2017, under
``train2017/`` or ``images/``.  Pictures that are not there are counted as problems.
"""

from __future__ import annotations

from pathlib import Path

from .cards import DatasetCard, register
from .collect import Collector, optional, words
from .dataset import Dataset
from .reading import read_jsonl
from .sample import Sample

NAMES = (
    "harmlessness_examine.jsonl",
    "VLSafe_harmlessness_examine.jsonl",
    "VLSafe/harmlessness_examine.jsonl",
)


def load(root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """All questions whose picture is there."""
    out = Collector("vlsafe", root, strict)
    file = out.file(*NAMES)
    beside = file.parent.relative_to(root)
    for number, (place, row) in enumerate(read_jsonl(file)):
        with out.record(place, file):
            name = words(row, "image_id")
            others = [base / folder / name for base in (Path(), beside) for folder in ("images", "imgs", "")]
            query = words(row, "query")
            out.add(
                Sample(
                    id=f"{number:05d}",
                    text=query,
                    images=(out.image(Path("train2017") / name, "image_id", *others),),
                    split="test",
                    group=name,
                    text_only=query,
                    caption=optional(row, "caption"),
                    label_image="safe",
                    label_text="unsafe",
                    label_joint="unsafe",
                ),
                place,
            )
    return out.dataset()


CARD = register(
    DatasetCard(
        name="vlsafe",
        title="VLSafe",
        citation="Chen et al., DRESS, CVPR 2024, arXiv 2311.10081",
        licence="not stated (pictures: COCO)",
        homepage="https://huggingface.co/datasets/YangyiYY/LVLM_NLF",
        download="harmlessness_examine.jsonl of hub data set YangyiYY/LVLM_NLF, and COCO train2017",
        files=("|".join(NAMES), "train2017/|images/|imgs/"),
        counts={},
        loader=load,
        source="third party",
        note="the words are harmful by themselves: text_only is the question as it is",
    )
)
