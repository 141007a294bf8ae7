"""What of an item has nothing to do with harm and may still tell it: length, number and size of pictures, brightness.

Harmful prompts of many sets are longer, or their pictures darker, than the harmless ones.  A probe on these few numbers
is a baseline that a role must beat; :func:`lvlm_lens.data.matching.balanced` keeps items that are alike in them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data import Sample
from ..errors import LensError

NAMES = (
    "tokens", "log_tokens", "characters", "log_characters", "words", "log_words", "pictures", "width", "height",
    "log_area", "brightness", "contrast",
)  # fmt: skip


def nuisance_features(samples: Sequence[Sample], tokens: np.ndarray | None = None) -> np.ndarray:
    """Features ``[n, len(NAMES)]`` float32, in the order of :data:`NAMES`.

    A picture that cannot be read counts as one without size and light.

    Args:
        samples: the items.
        tokens: ``[n]`` length of each encoded prompt, template and picture tokens included; words stand in where it is
            not known.
    """
    pictures: dict[str, tuple[float, ...]] = {}
    rows = []
    for number, sample in enumerate(samples):
        words = float(len(sample.text.split()))
        length = words if tokens is None else float(tokens[number])
        letters = float(len(sample.text))
        shown = [_picture(source, pictures) for source in sample.images]
        looks = np.mean(shown, axis=0) if shown else np.zeros(5)
        rows.append([length, np.log1p(length), letters, np.log1p(letters), words, np.log1p(words), len(shown), *looks])
    return np.asarray(rows, dtype=np.float32)


def _picture(source: object, known: dict[str, tuple[float, ...]]) -> tuple[float, ...]:
    """Width, height, log area, mean and spread of brightness (0 to 1); each picture is opened once."""
    try:
        key = source.key  # type: ignore[attr-defined]
        if key not in known:
            image = source.load()  # type: ignore[attr-defined]
            grey = np.asarray(image.convert("L").resize((32, 32)), dtype=np.float64) / 255
            width, height = image.size
            known[key] = (width, height, np.log(width * height), float(grey.mean()), float(grey.std()))
    except LensError:
        return (0.0,) * 5
    return known[key]
