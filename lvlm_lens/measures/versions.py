"""Other versions of an item: its words alone, its picture alone."""

from __future__ import annotations

from dataclasses import replace

from ..data import Sample
from ..errors import DataError
from .study import Study

NEUTRAL = "What is in this picture?"
"""The neutral words of "the picture alone"."""

FEW = 200
"""Items whose other versions (words alone, picture alone) are run."""


def needs_language(study: Study) -> None:
    """Raise :class:`DataError` for a family whose decoder cannot be run on words alone."""
    if "needs_image" in study.model.anatomy.family.flow:
        raise DataError("this family does not run without a picture, so words alone cannot be read")


def version(sample: Sample, kind: str, text: str, picture: bool) -> Sample:
    """The sample with other words, with or without its picture; ``kind`` marks its id."""
    return replace(sample, id=f"{sample.id} ({kind})", text=text, images=sample.images if picture else ())
