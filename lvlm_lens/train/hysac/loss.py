"""The terms of HySAC's loss over a batch of quadruplets, each of which can be left out.

A quadruplet is a safe text T, the safe picture I of the same scene, and their unsafe counterparts T* and I*.  Four
contrastive terms ``C`` (cross-entropy in both directions, on minus the distance) and three entailment terms ``E``
(hinge: the second lies in the cone of the first) make one chain from the root outward, T, I, T*, I*.

``C(T*, I)`` pulls each unsafe text to *its own* safe picture.  Much of what is published as "unsafe queries return safe
pictures" may be this term and not the geometry, so the same terms on Euclidean features are an option here, and the
ablation to make.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from . import lorentz

Pair = tuple[str, str]
TEXTS = ("T", "T*")
ALL_CONTRASTS: tuple[Pair, ...] = (("T", "I"), ("T*", "I*"), ("T", "I*"), ("T*", "I"))
MATCHED: tuple[Pair, ...] = ALL_CONTRASTS[:2]
ENTAILMENTS: tuple[Pair, ...] = (("T", "I"), ("T*", "I*"), ("I", "T*"))


@dataclass(frozen=True)
class Terms:
    """Which terms, in which geometry.

    Attributes:
        geometry: ``lorentz``, or ``euclidean`` (cosines of normalised features, as CLIP).
        contrasts: pairs that are contrasted; entailments: pairs of which the first is the more general.
        weight: of the entailment terms (lambda); eta: of the half aperture; K: of the aperture.
    """

    geometry: Literal["lorentz", "euclidean"] = "lorentz"
    contrasts: Sequence[Pair] = ALL_CONTRASTS
    entailments: Sequence[Pair] = ENTAILMENTS
    weight: float = 1.0
    eta: float = 1.0
    K: float = 0.1


class Head(nn.Module):
    """The parameters beside CLIP's: curvature, two scales, the logit scale; and the loss.

    Args:
        width: of CLIP's shared space.
        terms: of the loss.
        curvature: where it starts; it stays within a tenth and ten times of it.

    All are learnt as logarithms.  As in the release, the feature scales start at ``width^-1/2`` and cannot exceed 1;
    the logit scale starts at 1 / 0.07 and cannot fall below that nor exceed 100.
    """

    def __init__(self, width: int, terms: Terms | None = None, curvature: float = 1.0) -> None:
        super().__init__()
        self.terms = terms or Terms()
        self.start = math.log(curvature)
        self.log_curvature = nn.Parameter(torch.tensor(self.start))
        self.log_text_scale = nn.Parameter(torch.tensor(-0.5 * math.log(width)))
        self.log_image_scale = nn.Parameter(torch.tensor(-0.5 * math.log(width)))
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def curvature(self) -> torch.Tensor:
        """c, within its bounds."""
        return self.log_curvature.clamp(self.start - math.log(10), self.start + math.log(10)).exp()

    @property
    def logit_scale(self) -> torch.Tensor:
        """What minus the distance is multiplied with."""
        return self.log_logit_scale.clamp(math.log(1 / 0.07), math.log(100)).exp()

    def place(self, features: torch.Tensor, kind: Literal["text", "image"]) -> torch.Tensor:
        """Features ``[n, d]`` as points: on the hyperboloid (space part), or unit vectors in the Euclidean case."""
        if self.terms.geometry == "euclidean":
            return F.normalize(features, dim=-1)
        scale = self.log_text_scale if kind == "text" else self.log_image_scale
        return lorentz.lift(features * scale.clamp_max(0).exp(), self.curvature)

    def similarity(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """``[n, m]``: minus the distance, or the cosine."""
        if self.terms.geometry == "euclidean":
            return x @ y.T
        return -lorentz.distance(x, y, self.curvature)

    def radius(self, features: torch.Tensor, kind: Literal["text", "image"]) -> torch.Tensor:
        """Distance from the root ``[n]``; of Euclidean features their norm before they are normalised."""
        if self.terms.geometry == "euclidean":
            return features.norm(dim=-1)
        return lorentz.radius(self.place(features, kind), self.curvature)

    def forward(self, features: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss and its terms; ``features [n, d]`` of T, I, T* and I* by these names."""
        at = {name: self.place(value, "text" if name in TEXTS else "image") for name, value in features.items()}
        parts: dict[str, torch.Tensor] = {}
        for x, y in self.terms.contrasts:
            parts[f"C({x},{y})"] = self._contrast(at[x], at[y])
        if self.terms.geometry == "lorentz" and self.terms.weight:
            for x, y in self.terms.entailments:
                parts[f"E({x}->{y})"] = self.terms.weight * self._entail(at[x], at[y])
        loss = torch.stack(list(parts.values())).sum() / (len(ALL_CONTRASTS) + len(ENTAILMENTS))
        return loss, {name: float(value.detach()) for name, value in parts.items()}

    def _contrast(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = self.logit_scale * self.similarity(x, y)  # [n, n]
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    def _entail(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        angle = lorentz.exterior_angle(x, y, self.curvature)
        return (angle - self.terms.eta * lorentz.half_aperture(x, self.curvature, self.terms.K)).clamp_min(0).mean()
