"""What the page's linked views need of each item: scores and places block by block, labels, a small picture.

Written beside the result as ``explore.json``, so that a page can be made from the folder alone, without model or data.
"""

from __future__ import annotations

import base64
import hashlib
import io
from typing import Any

import numpy as np

from ..data import Sample
from ..errors import LensError
from ..lens import LVLM
from ..locate.locating import Located
from ..measures.evidence import Evidence
from ..measures.items import harm_labels
from ..plots.strip import aligned_planes

SCHEMA = "lvlm-lens/explore/1"
MOST_ITEMS = 1000
"""A page of more items than this would be too heavy to send; a seeded choice is shown and counted."""
_SIDE = 56
_TEXT = 600


def explore_record(model: LVLM, evidence: Evidence, located: Located, seed: int = 0) -> dict[str, Any]:
    """Items, in the order of the data, as plain values.

    Args:
        model: for the first word of each answer.
        evidence: of the model.
        located: whose out-of-fold perception scores and thresholds are shown.
        seed: of the choice where there are more than :data:`MOST_ITEMS` items.

    Returns:
        ``{"schema", "blocks", "items_in_all", "items", "pictures"}``; an item has ``id``, ``text``, ``labels``,
        ``harmful``, ``category``, ``refused`` and ``perceived`` (bool), ``answer`` (its first token), ``score``
        ``[block]`` (decision value), ``xy`` ``[block][2]`` in -1 to 1, and ``picture`` (a place in ``pictures``, or
        ``None``).
    """
    known = harm_labels(evidence.samples) >= 0
    used = evidence.rows(known)
    chosen = np.arange(len(used))
    if len(used) > MOST_ITEMS:
        chosen = np.sort(np.random.default_rng(seed).choice(len(used), MOST_ITEMS, replace=False))
    scores = located.probes["perception"].scores_[chosen]  # [item, block]
    planes = aligned_planes([used.resid[:, at] for at in range(len(used.blocks))])
    shown = np.stack([plane[chosen] / (np.abs(plane).max() or 1.0) for plane in planes], axis=1)  # [item, block, 2]
    pictures: dict[str, str] = {}
    items = []
    for row, number in enumerate(chosen.tolist()):
        sample = used.samples[number]
        items.append(
            {
                "id": sample.id,
                "text": sample.text[:_TEXT],
                "labels": ", ".join(
                    str(label or "-") for label in (sample.label_image, sample.label_text, sample.label_joint)
                ),
                "harmful": bool(sample.harmful),
                "category": sample.category or "",
                "refused": bool(used.log_odds[number] > 0),
                "perceived": bool(located.perceived.get(sample.id, False)),
                "answer": model.tokenizer.decode([int(used.top[number])]).strip(),
                "score": [round(float(value), 3) for value in scores[row]],
                "xy": [[round(float(x), 3), round(float(y), 3)] for x, y in shown[row]],
                "picture": _place(sample, pictures),
            }
        )
    return {
        "schema": SCHEMA,
        "blocks": list(used.blocks),
        "items_in_all": len(used),
        "items": items,
        "pictures": list(pictures.values()),
    }


def _place(sample: Sample, pictures: dict[str, str]) -> int | None:
    """Where the sample's first picture stands among the small ones; equal pictures are kept once."""
    if not sample.images:
        return None
    try:
        picture = sample.images[0].load()
    except LensError:
        return None  # its record was left out of the run, or the file is gone since
    small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=70)
    key = hashlib.sha256(buffer.getvalue()).hexdigest()
    if key not in pictures:
        pictures[key] = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return list(pictures).index(key)
