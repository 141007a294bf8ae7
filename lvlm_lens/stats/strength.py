"""Squared strengths over blocks with their error, refitted: what onsets and their order are read from.

The error is over groups.  A delete-a-part jackknife and a bootstrap both learn the direction anew, and both say too
much of a squared strength near zero: of the part of the variance that is quadratic in the noise, the jackknife gives
twice and the bootstrap three times the truth (Efron and Stein 1981 for the jackknife; the bootstrap's weights have a
mean square of 2, so a product of two has ``2 * 2 - 1``).  Twice the first less the second is therefore right in both
parts, linear and quadratic.  Draws are Gaussian with that covariance over all roles and blocks.  [own]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .signal import Design, scalar_signal_squared

PARTS, REPLICATES = 100, 100
"""Parts of the jackknife at most, and replicates of the bootstrap, that the covariance is made of."""


@dataclass(frozen=True)
class Strength:
    """Squared strengths of some roles on the same blocks.

    Attributes:
        squared: ``[role, block]``, can be negative.
        covariance: ``[role * block, role * block]``, of their errors.
        groups: number of independent groups.
    """

    squared: np.ndarray
    covariance: np.ndarray
    groups: int

    def errors(self, draws: int = 500, seed: int = 0) -> np.ndarray:
        """Errors drawn anew, ``[role, draw, block]``."""
        values, vectors = np.linalg.eigh(self.covariance)
        noise = np.random.default_rng(seed).standard_normal((draws, len(values)))
        errors = (noise * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        roles, blocks = self.squared.shape
        return errors.reshape(draws, roles, blocks).transpose(1, 0, 2)

    def role(self, number: int) -> Strength:
        """One role alone."""
        blocks = self.squared.shape[1]
        part = slice(number * blocks, (number + 1) * blocks)
        return Strength(self.squared[number : number + 1], self.covariance[part, part], self.groups)


def measure_strength(
    rows: Iterable[Any],
    signs: Any,
    groups: Any,
    fold: np.ndarray,
    strata: np.ndarray | None = None,
    seed: int = 0,
) -> Strength:
    """Strengths of roles in the arrays of blocks.

    Args:
        rows: an array ``[item, d]`` for each block.
        signs: ``[role, item]`` in 1, -1 and 0, as for :class:`~.signal.Design`.
        groups, fold, strata: ``[item]``; a group lies in one fold.
        seed: of parts and bootstrap.
    """
    weights, parts = _weights(groups, seed)
    design = Design(signs, fold, weights, strata)
    return _measured(np.stack([design.squared(x) for x in rows], -1), parts, groups)


def measure_scalar_strength(scores: Any, positive: np.ndarray, groups: Any, seed: int = 0) -> Strength:
    """Strength of scores ``[item, block]`` that were not learnt from these labels; one role."""
    weights, parts = _weights(groups, seed)
    return _measured(scalar_signal_squared(scores, positive, weights)[None], parts, groups)


def _measured(found: np.ndarray, parts: int, groups: Any) -> Strength:
    """From estimates ``[role, 1 + parts + replicates, block]``."""
    roles, rows, blocks = found.shape
    flat = np.moveaxis(found, 1, 0).reshape(rows, roles * blocks)
    return Strength(found[:, 0], _covariance(flat, parts), len(np.unique(groups)))


def _weights(groups: Any, seed: int) -> tuple[np.ndarray, int]:
    """Weights ``[1 + parts + replicates, item]``: all, each part left out, bootstrap over groups."""
    index = np.unique(groups, return_inverse=True)[1].reshape(-1)
    count = int(index.max()) + 1
    rng = np.random.default_rng(seed)
    parts = min(PARTS, count)
    part = rng.permutation(count) % parts
    left = (np.arange(parts)[:, None] != part[None]).astype(np.float64)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=REPLICATES).astype(np.float64)
    return np.concatenate([np.ones((1, count)), left, drawn])[:, index], parts


def _covariance(found: np.ndarray, parts: int) -> np.ndarray:
    """Covariance of the first row from the rows without a part and the bootstrap's."""
    left, drawn = found[1 : parts + 1], found[parts + 1 :]
    left, drawn = left[np.isfinite(left).all(1)], drawn[np.isfinite(drawn).all(1)]
    if len(left) < 2 or len(drawn) < 2:
        return np.full((found.shape[1],) * 2, np.nan)
    apart = left - left.mean(0)
    jackknife = (parts - 1) / parts * apart.T @ apart * parts / len(left)
    bootstrap = np.cov(drawn, rowvar=False).reshape(jackknife.shape)
    return 2 * jackknife - bootstrap
