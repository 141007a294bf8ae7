"""How far apart two runs of one and the same forward may lie: the one definition.

Batch shapes, kernels and resumed runs change how sums are rounded.  What that may do to a logit grows with the size
of the logits, so the largest difference is held against a share of the largest logit (at least 1), by dtype.  Whoever
can measure more (the noise of another batch shape, the effect of the intervention itself) is stricter than this:
see :mod:`lvlm_lens.interventions.verification`.  [own]
"""

from __future__ import annotations

import torch

SHARE = {torch.float64: 1e-8, torch.float32: 2e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Largest allowed difference, as a share of the largest logit."""
BARRED = 1e30
"""Logits beyond this size belong to tokens that a family bars (Chameleon its image tokens): no information."""
TOLD = 4.0
"""Times the noise above which a change is told from it."""


def largest(logits: torch.Tensor) -> torch.Tensor:
    """The largest size along the last axis, ``[...]``; barred tokens count 0."""
    size = logits.abs()
    return torch.where(size < BARRED, size, 0 * size).amax(-1)  # 0 * NaN is NaN: it must not pass


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of two arrays of logits; infinite where shapes differ or a number is missing."""
    if one.shape != other.shape:
        return float("inf")
    found = float(largest(torch.where(other.abs() < BARRED, one - other, 0 * other)).max())
    return found if found == found else float("inf")


def allowed(dtype: torch.dtype, logits: torch.Tensor) -> float:
    """How far another run in ``dtype`` may lie from these logits."""
    return SHARE.get(dtype, SHARE[torch.bfloat16]) * max(1.0, float(largest(logits).max()))
