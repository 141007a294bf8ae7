"""Data sets: samples, pairs, splits, and one file for each published format.

One rule each: :mod:`.groups` says which samples belong together, :mod:`.limits` which ones a limit keeps.  Imports
``storage`` and ``stats`` at most.  One more published format: a file with its card, and its name in ``FORMATS`` of
:mod:`.registry`; ``tests/data/test_formats.py`` reads a few invented records of it.
"""

from .dataset import Dataset, Problem
from .images import ImageBytes, ImageDrawn, ImageFile, ImageObject, ImageSource, as_image_source
from .sample import Label, Pair, Sample

__all__ = [
    "Dataset",
    "ImageBytes",
    "ImageDrawn",
    "ImageFile",
    "ImageObject",
    "ImageSource",
    "Label",
    "Pair",
    "Problem",
    "Sample",
    "as_image_source",
]
