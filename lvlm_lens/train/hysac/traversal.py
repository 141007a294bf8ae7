"""Traversal: an embedding that lies too far from the root is brought back along its ray.

From a bound ``b`` (the 95th percentile of the distances of safe pictures, or texts, from the root) HySAC makes
``b' = b + tanh((b - a) / c) + 1`` with ``a = 0.8``; what lies beyond ``b'`` is moved to it.  The release sets the
*Euclidean norm* of the space part to ``b'``, where the distance is ``asinh(sqrt(c) b') / sqrt(c)``: at c = 2 a target
of 0.9 gives 0.75.  ``mode="paper"`` does that, ``mode="fixed"`` puts the point at distance ``b'``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from ...errors import UsageError
from . import lorentz

Mode = Literal["paper", "fixed"]
MODES: tuple[Mode, ...] = ("paper", "fixed")


@dataclass(frozen=True)
class Traversal:
    """Where points are brought back to.

    Attributes:
        bound: percentile of the radii of safe items; c: curvature.
        a: of the formula; ``None`` takes the bound itself as the target [own].
        mode: see the module.
    """

    bound: float
    c: float
    a: float | None = 0.8
    mode: Mode = "fixed"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"mode is {self.mode!r}; write paper or fixed")

    @property
    def target(self) -> float:
        """Distance beyond which points are moved, and to which."""
        return self.bound if self.a is None else self.bound + math.tanh((self.bound - self.a) / self.c) + 1

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points ``[n, d]`` after traversal, and which of them were moved ``[n]``."""
        moved = lorentz.radius(x, self.c) > self.target
        if self.mode == "paper":
            back = x / x.norm(dim=-1, keepdim=True) * self.target
        else:
            back = lorentz.at_radius(x, self.target, self.c)
        return torch.where(moved[:, None], back, x), moved


def safe_bound(x: torch.Tensor, c: float, quantile: float = 0.95) -> float:
    """The bound from safe points ``[n, d]``."""
    return float(torch.quantile(lorentz.radius(x, c).float(), quantile))
