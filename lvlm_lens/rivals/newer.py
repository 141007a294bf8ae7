"""Newer measures whose formula could be read: X-Boundary's and TELLME's, as DeepScan (arXiv 2602.12092) computes them.

Formulas read in that toolkit's code (MIT); nothing of it is used.  Both read fixed blocks, at thirds of the depth, so
they find nothing: what they can say is how much they see there.
"""

from __future__ import annotations

import numpy as np

from .procedure import Found
from .readings import Readings


def x_boundary(r: Readings) -> Found:
    """Separation: distance of the class centroids of prompt-averaged states; its blocks are a third and two thirds.

    The distance is not divided by anything, so it grows with the length of the residual.  Its second number, the
    boundary ratio, needs a third class of harmless prompts that look harmful, marked as such, and is left out.
    """
    assert r.mean is not None
    centres = [r.mean[mask].mean(0, dtype=np.float64) for mask in (r.harmful, ~r.harmful)]
    values = np.linalg.norm(centres[0] - centres[1], axis=1)
    thirds = [int(r.depth / 3), int(r.depth * 2 / 3)]
    return Found(thirds[0], thirds[1], r.blocks[int(values.argmax())], values, "distance", len(r))


def coding_rate(rows: np.ndarray, eps: float = 0.1) -> float:
    """``log det(I + d / (n eps) Z'Z) / 2`` of rows ``[n, d]``, nats (Yu et al. 2020, arXiv 2006.08558)."""
    n, d = rows.shape
    gram = rows @ rows.T if n <= d else rows.T @ rows
    return float(np.linalg.slogdet(np.eye(len(gram)) + d / (n * eps) * gram)[1] / 2)


def tellme(r: Readings) -> Found:
    """Gap of coding rates: that of all states less the mean of the classes'; its block is two thirds of the depth.

    The published code scales the two rates unequally and normalises features where the rate's authors normalise
    samples; here both rates are scaled alike and samples have length one.  A rate is about second moments: classes that
    lie opposite each other across the origin are one to it.  The states are those of the prompt's last token; the
    published ones end in an appended sentence.
    """
    assert r.last is not None
    values = []
    for at in range(len(r.blocks)):
        z = r.last[:, at].astype(np.float64)
        z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
        parts = [z[r.harmful], z[~r.harmful]]
        values.append(coding_rate(z) - sum(len(part) / len(z) * coding_rate(part) for part in parts))
    block = max(0, int(r.depth * 2 / 3) - 1)
    found = np.array(values)
    return Found(block, block, r.blocks[int(found.argmax())], found, "nats", len(r))
