"""The Lorentz model of hyperbolic space, as HySAC and MERU use it.

A point is given by its space part ``x [..., d]``; its time part is ``sqrt(1/c + |x|^2)``, so nothing can leave the
hyperboloid.  ``c > 0`` is the size of the (negative) curvature.  The root of the hierarchy is the origin, ``x = 0``.

Formulas as in the release of HySAC (arXiv 2503.12127, read in its code); the tests hold them against ``geoopt``.
"""

from __future__ import annotations

import torch

_EPS = 1e-6


def lift(v: torch.Tensor, c: torch.Tensor | float) -> torch.Tensor:
    """The exponential map at the origin: space part ``[..., d]`` of a tangent vector ``[..., d]``.

    ``sinh(sqrt(c)|v|) v / (sqrt(c)|v|)``; the distance of the result from the origin is ``|v|`` exactly.
    """
    size = (torch.as_tensor(c) ** 0.5 * v.norm(dim=-1, keepdim=True)).clamp_min(_EPS)
    return torch.sinh(size) / size * v


def time_part(x: torch.Tensor, c: torch.Tensor | float) -> torch.Tensor:
    """``[..., 1]``."""
    return (1 / torch.as_tensor(c) + x.square().sum(-1, keepdim=True)).sqrt()


def inner(x: torch.Tensor, y: torch.Tensor, c: torch.Tensor | float) -> torch.Tensor:
    """Lorentzian inner products ``[n, m]`` of ``x [n, d]`` and ``y [m, d]``."""
    return x @ y.T - time_part(x, c) @ time_part(y, c).T


def distance(x: torch.Tensor, y: torch.Tensor, c: torch.Tensor | float) -> torch.Tensor:
    """Distances ``[n, m]``; float32 resolves none below about 1e-3."""
    root = torch.as_tensor(c) ** 0.5
    return torch.acosh((-c * inner(x, y, c)).clamp_min(1 + _EPS**2 if x.dtype == torch.float64 else 1 + _EPS)) / root


def radius(x: torch.Tensor, c: torch.Tensor | float) -> torch.Tensor:
    """Distance from the origin ``[...]``."""
    root = torch.as_tensor(c) ** 0.5
    return torch.asinh(root * x.norm(dim=-1)) / root


def at_radius(x: torch.Tensor, r: torch.Tensor | float, c: torch.Tensor | float) -> torch.Tensor:
    """The points on the same rays at distance ``r`` from the origin."""
    root = torch.as_tensor(c) ** 0.5
    return x / x.norm(dim=-1, keepdim=True).clamp_min(_EPS) * (torch.sinh(root * r) / root)


def half_aperture(x: torch.Tensor, c: torch.Tensor | float, K: float = 0.1) -> torch.Tensor:
    """Half the opening ``[...]`` of the cone of what a point entails: ``asin(2K / (sqrt(c)|x|))``, at most pi / 2."""
    return torch.asin((2 * K / (torch.as_tensor(c) ** 0.5 * x.norm(dim=-1)).clamp_min(_EPS)).clamp_max(1 - _EPS))


def exterior_angle(x: torch.Tensor, y: torch.Tensor, c: torch.Tensor | float) -> torch.Tensor:
    """Angle ``[n]`` at ``x [n, d]`` between the continued ray from the origin and the geodesic to ``y [n, d]``."""
    product = c * ((x * y).sum(-1) - (time_part(x, c) * time_part(y, c)).squeeze(-1))
    above = time_part(y, c).squeeze(-1) + product * time_part(x, c).squeeze(-1)
    below = x.norm(dim=-1) * (product.square() - 1).clamp_min(_EPS).sqrt()
    return torch.acos((above / below.clamp_min(_EPS)).clamp(-1 + _EPS, 1 - _EPS))
