"""Scores of samples by probes that never saw them, for many labels and regularisations at once.

Every question asked of a probe is a list of training masks (which samples it may learn from) and a list
of problems (label vector, C).  One mask of one block is rotated once (:mod:`.logistic`) and all its
problems are solved there.  The choice of C by nested cross-validation comes out of the same list: the
model trained without folds ``{j, k}`` serves as inner model of outer fold ``k`` (judged on ``j``) and of outer
fold ``j`` (judged on ``k``), so F folds need F + F (F - 1) / 2 fits and not F + F (F - 1).  [own]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch

from ..errors import UsageError
from .auroc import weighted_auroc
from .logistic import Span, Stretch, balanced_weights, solve, span, span_scale


@dataclass(frozen=True)
class Settings:
    """How a probe is fitted.

    Attributes:
        standardize: ``True``: unit variance of each feature, from the training rows, as scikit-learn's
            ``StandardScaler``; ``"rms"``: one scale for all features, the root mean square of the centred
            training rows; ``False``: none.  The last two leave the geometry of the activations as it is.
        class_weight: ``None`` or ``"balanced"``.
        tolerance: relative error of the coefficients.
        loose: the same for label vectors after the first, where they are shuffles of the first: their AUROC needs
            no third digit of a coefficient.
    """

    standardize: bool | str = True
    class_weight: str | None = None
    tolerance: float = 1e-5
    loose: float | None = None

    def __post_init__(self) -> None:
        if self.class_weight not in (None, "balanced"):
            raise UsageError(f"class_weight is {self.class_weight!r}; write None or 'balanced'")
        if self.standardize not in (True, False, "rms"):
            raise UsageError(f"standardize is {self.standardize!r}; write True, False or 'rms'")


@dataclass(frozen=True)
class _Fit:
    """Solutions of some masks at one C: ``beta [mask * vector, class, r]``, ``b`` alike; ``shape``: [mask, vector]."""

    masks: list[int]
    c: int
    stretch: Stretch
    beta: torch.Tensor
    b: torch.Tensor
    shape: tuple[int, int]
    whole: bool  # the span holds every row of the block, in order

    def coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """``[mask, vector, class, d]`` and ``[mask, vector, class]`` for raw features."""
        coef, b = self.stretch.coefficients(self.beta, self.b)
        return coef.reshape(*self.shape, *coef.shape[1:]).numpy(), b.reshape(*self.shape, -1).numpy()

    def scores(self) -> np.ndarray:
        """Decision values ``[row, mask, vector, class]`` of all rows of the span."""
        image = self.stretch(self.beta, torch.arange(len(self.beta)))
        values = (image.reshape(-1, image.shape[2]) @ self.stretch.span.z.T).reshape(*self.shape, self.b.shape[1], -1)
        return (values + self.b.reshape(*self.shape, -1, 1)).permute(3, 0, 1, 2).numpy()


@dataclass(frozen=True)
class _Job:
    """Masks that are solved on one span."""

    masks: list[int]
    span: Span
    ratio: np.ndarray  # [mask, d], see Stretch
    penalty: np.ndarray  # [mask], what 1 / C is multiplied with
    whole: bool


STRETCH = 0.5
"""Masks whose feature variances differ by more than this share from those of all rows get their own rotation."""
COLUMNS = 256
"""Problems that are refined together."""


def _jobs(rows: np.ndarray, masks: np.ndarray, settings: Settings) -> Iterator[_Job]:
    data = torch.from_numpy(np.ascontiguousarray(rows))
    together, apart = list(range(len(masks))), []
    penalty = np.ones(len(masks))
    ratio = np.ones((len(masks), rows.shape[1]))
    if settings.standardize == "rms":
        penalty = np.array([_mean_square(rows, mask) for mask in masks])
    if settings.standardize is True:
        everywhere = span_scale(rows) ** 2
        ratio = np.stack([everywhere / span_scale(rows[mask]) ** 2 for mask in masks])
        near = (np.abs(ratio - 1) <= STRETCH).all(1)
        # One mask alone gains nothing from a span of more rows than it has.
        together = [int(m) for m in np.flatnonzero(near)] if near.sum() > 1 else []
        apart = [m for m in range(len(masks)) if m not in together]
    if together:
        scaled = span(data, settings.standardize is True)
        yield _Job(together, scaled, ratio[together], penalty[together], True)
    for m in apart:
        yield _Job([m], span(data[torch.from_numpy(masks[m])]), np.ones((1, rows.shape[1])), penalty[[m]], False)


def _fits(
    rows: np.ndarray, codes: np.ndarray, masks: np.ndarray, cs: np.ndarray, settings: Settings, classes: int
) -> Iterator[_Fit]:
    """Fits of every mask, label vector and C; each C starts from the solution of the one before."""
    vectors = codes.shape[1]
    for job in _jobs(rows, masks, settings):
        inside = (codes if job.whole else codes[masks[job.masks[0]]]).T  # [vector, row]
        part = masks[job.masks] if job.whole else np.ones((1, inside.shape[1]), dtype=bool)  # [mask, row]
        targets = inside[:, None] == (np.arange(classes) if classes > 1 else np.array([1]))[:, None]
        y = torch.from_numpy(targets.astype(np.float64)).repeat(len(job.masks), 1, 1)  # [mask * vector, class, row]
        columns = len(y)
        if settings.class_weight == "balanced":
            weights = torch.from_numpy(np.concatenate([balanced_weights(inside, mask) for mask in part]))
        else:
            weights = torch.from_numpy(part.astype(np.float64)).repeat_interleave(vectors, 0)
        tolerances = torch.full((columns,), settings.tolerance, dtype=torch.float64)
        if settings.loose is not None:
            tolerances.view(len(job.masks), vectors)[:, 1:] = settings.loose
        strengths = torch.from_numpy(np.repeat(job.penalty, vectors))
        which = torch.from_numpy(np.repeat(np.arange(len(job.masks)), vectors))
        stretch = Stretch(job.span, torch.from_numpy(job.ratio), which)
        exact = stretch.size == 0
        path: list[tuple[torch.Tensor, torch.Tensor]] = []
        for c in cs:  # without the stretch: already the solution where there is none, else where to start
            start = path[-1] if path else None
            tolerance = tolerances if exact else 1e-2
            path.append(solve(job.span, y, strengths / c, weights, start, None, tolerance))
        size = max(1, COLUMNS // columns)
        for first in range(0, len(cs), size):
            some = list(range(first, min(first + size, len(cs))))
            if not exact:
                beta, b = solve(
                    job.span,
                    y.repeat(len(some), 1, 1),
                    torch.cat([strengths / cs[at] for at in some]),
                    weights.repeat(len(some), 1),
                    (torch.cat([path[at][0] for at in some]), torch.cat([path[at][1] for at in some])),
                    Stretch(job.span, stretch.ratio, which.repeat(len(some))),
                    tolerances.repeat(len(some)),
                )
                for at, one in enumerate(some):
                    inner = slice(at * columns, (at + 1) * columns)
                    path[one] = beta[inner], b[inner]
            for at in some:
                yield _Fit(job.masks, at, stretch, *path[at], (len(job.masks), vectors), job.whole)


def _mean_square(rows: np.ndarray, mask: np.ndarray) -> float:
    part = rows[mask].astype(np.float64)
    return float(part.var(0).mean()) or 1.0


def grid_coefficients(
    rows: np.ndarray, codes: np.ndarray, masks: np.ndarray, cs: Any, settings: Settings, classes: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of every (mask, label vector, C) on one block.

    Args:
        rows: ``[sample, d]``.
        codes: ``[sample, vector]`` integer class codes (0/1 for ``classes=1``, else 0 .. classes - 1).
        masks: ``[mask, sample]`` bool: the training samples.
        cs: ``[C]``, ascending.
        settings: see :class:`Settings`.
        classes: 1 for a binary probe, else the number of classes.

    Returns:
        ``coef [mask, vector, C, class, d]`` and ``intercept [mask, vector, C, class]``, for raw features, float64.
    """
    cs = np.asarray(cs, dtype=np.float64)
    coef = np.empty((len(masks), codes.shape[1], len(cs), classes, rows.shape[1]))
    intercept = np.empty(coef.shape[:-1])
    for fit in _fits(rows, codes, masks, cs, settings, classes):
        coef[fit.masks, :, fit.c], intercept[fit.masks, :, fit.c] = fit.coefficients()
    return coef, intercept


def grid_scores(
    rows: np.ndarray, codes: np.ndarray, masks: np.ndarray, cs: Any, settings: Settings, classes: int = 1
) -> np.ndarray:
    """Decision values of every (mask, label vector, C) for the samples outside each mask.

    Arguments as in :func:`grid_coefficients`.

    Returns:
        ``[sample, mask, vector, C, class]`` float64, NaN for samples the mask trained on.
    """
    cs = np.asarray(cs, dtype=np.float64)
    out = np.full((len(rows), len(masks), codes.shape[1], len(cs), classes), np.nan)
    for fit in _fits(rows, codes, masks, cs, settings, classes):
        if fit.whole:
            values = fit.scores()
            for at, number in enumerate(fit.masks):
                held = ~masks[number]
                out[held, number, :, fit.c] = values[held, at]
        else:
            coef, b = fit.coefficients()
            held = ~masks[fit.masks[0]]
            out[held, fit.masks[0], :, fit.c] = decision(rows[held], coef[0], b[0])
    return out


def decision(rows: np.ndarray, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """``[sample, *problem]`` decision values, ``coef [*problem, d]``, ``intercept [*problem]``."""
    out = rows.astype(np.float64, copy=False) @ coef.reshape(-1, coef.shape[-1]).T + intercept.reshape(-1)
    return out.reshape(len(rows), *intercept.shape)


def fold_masks(fold: np.ndarray) -> np.ndarray:
    """``[fold, sample]`` training masks: all folds but one."""
    return np.arange(fold.max() + 1)[:, None] != fold[None]


def out_of_fold(
    rows: np.ndarray, codes: np.ndarray, fold: np.ndarray, cs: Any, settings: Settings, classes: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold decision values of one block for each label vector, C fixed or chosen inside.

    Args:
        rows: ``[sample, d]``.
        codes: ``[sample, vector]`` integer class codes.
        fold: ``[sample]``.
        cs: candidate values of C, ascending; more than one means nested choice by inner AUROC
            (two classes) or inner log-likelihood (more); of equals the smallest.
        settings: see :class:`Settings`.
        classes: 1 for a binary probe, else number of classes.

    Returns:
        ``scores [sample, vector, class]`` and ``C [fold, vector]`` as used.
    """
    folds, vectors = int(fold.max()) + 1, codes.shape[1]
    cs = np.asarray(cs, dtype=np.float64)
    if len(cs) == 1:
        grid = grid_scores(rows, codes, fold_masks(fold), cs, settings, classes)
        return grid[np.arange(len(rows)), fold, :, 0], np.full((folds, vectors), cs[0])
    if folds < 3:
        raise UsageError("a nested choice of C needs at least 3 folds")
    pairs = list(combinations(range(folds), 2))
    masks = np.concatenate([fold_masks(fold), np.stack([(fold != j) & (fold != k) for j, k in pairs])])
    grid = grid_scores(rows, codes, masks, cs, settings, classes)
    quality = np.empty((folds, vectors, len(cs)))
    for outer in range(folds):
        inside = np.flatnonzero(fold != outer)
        # A sample of fold f is judged by the model that saw neither f nor the outer fold.
        model = np.array([folds + pairs.index((min(f, outer), max(f, outer))) for f in fold[inside]])
        values = grid[inside, model]  # [inside, vector, C, class]
        for vector in range(vectors):
            quality[outer, vector] = _quality(values[:, vector], codes[inside, vector], fold[inside])
    best = np.nan_to_num(quality, nan=-np.inf).argmax(-1)  # [fold, vector]
    scores = grid[np.arange(len(rows))[:, None], fold[:, None], np.arange(vectors)[None], best[fold]]
    return scores, cs[best]


def _quality(values: np.ndarray, codes: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """AUROC (one class column) or mean log-likelihood by C, ``values [sample, C, class]``."""
    if values.shape[-1] == 1:
        return weighted_auroc(values[..., 0], codes, None, fold)[0]
    return log_softmax(values)[np.arange(len(codes)), :, codes].mean(0)


def log_softmax(values: np.ndarray) -> np.ndarray:
    """Log-probabilities over the last axis."""
    shifted = values - values.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def sigmoid(x: Any) -> np.ndarray:
    """Logistic function, overflow-safe."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, dtype=np.float64)))
