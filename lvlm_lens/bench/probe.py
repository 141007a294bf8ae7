"""How much faster are the probes than the scikit-learn loop that they replace?  Measured, in one run.

Both sides do the same work: for every block, every fold (the same folds) and every C (the same grid) a
standardised L2 logistic regression on the same float32 activations, and the out-of-fold scores.  The data
have the power-law spectrum of language-model activations (variance of the k-th direction ~ k^-decay).

scikit-learn is run three ways, because its answer depends on how it is asked: as most people write it
(float32 data, default tolerance 1e-4), the same in float64, and *at equal accuracy*: float64, and for each C the
loosest tolerance of 1e-4, 1e-5, ... at which its coefficients are within 1e-4 of the converged ones (found on
block 0, outside the clock).  All ratios are printed, with the accuracy of each; the headline is the ratio at equal
accuracy.  Where ``sklearn_blocks`` is smaller than ``blocks`` the loop runs on
that many blocks and its time is multiplied by ``blocks / sklearn_blocks``; the result says so.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import torch

from ..stats.crossfit import Settings, fold_masks, grid_coefficients, grid_scores
from ..stats.resampling import group_folds

GRID = tuple(float(c) for c in np.logspace(-4, 0, 5))


class _Synthetic:
    """Blocks drawn when they are asked for, so that the bench needs the memory of one block."""

    def __init__(self, samples: int, width: int, labels: np.ndarray, decay: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.labels, self.seed, self.samples = labels, seed, samples
        rank = min(samples, width)
        self.axes = np.linalg.qr(rng.standard_normal((width, rank)))[0].astype(np.float32)  # [d, rank]
        self.spectrum = (np.arange(1, rank + 1) ** (-decay / 2)).astype(np.float32)

    def block(self, block: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, block))
        latent = rng.standard_normal((self.samples, len(self.spectrum)), dtype=np.float32)
        latent[:, :20] += 0.3 * self.labels[:, None] * rng.standard_normal(20, dtype=np.float32)
        noise = rng.standard_normal((self.samples, len(self.axes)), dtype=np.float32)
        return (latent * self.spectrum) @ self.axes.T + 0.01 * self.spectrum[0] * noise / np.sqrt(len(self.axes))


def _sklearn_loop(
    rows: np.ndarray, labels: np.ndarray, fold: np.ndarray, cs: Any, dtype: Any, tols: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold scores ``[sample, C]`` and coefficients for raw features ``[fold, C, d]``."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scores = np.empty((len(rows), len(cs)))
    coef = np.empty((fold.max() + 1, len(cs), rows.shape[1]))
    for number in range(fold.max() + 1):
        train, held = fold != number, fold == number
        scaler = StandardScaler().fit(rows[train].astype(dtype))
        x, x_held = scaler.transform(rows[train].astype(dtype)), scaler.transform(rows[held].astype(dtype))
        for at, (c, tol) in enumerate(zip(cs, tols, strict=True)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model = LogisticRegression(C=c, tol=tol, max_iter=100_000).fit(x, labels[train])
            scores[held, at] = model.decision_function(x_held)
            coef[number, at] = model.coef_[0] / scaler.scale_
    return scores, coef


def _relative(coef: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Relative error by C, the largest over folds, ``[C]``."""
    return (np.linalg.norm(coef - exact, axis=-1) / np.linalg.norm(exact, axis=-1)).max(0)


def _equal_tolerances(
    rows: np.ndarray, labels: np.ndarray, fold: np.ndarray, cs: Any, exact: np.ndarray, accuracy: float = 1e-4
) -> list[float]:
    """For each C the loosest tolerance at which scikit-learn's coefficients are within ``accuracy``."""
    found = [1e-12] * len(cs)
    open_ = list(range(len(cs)))
    for power in range(4, 12):
        some = [cs[at] for at in open_]
        coef = _sklearn_loop(rows, labels, fold, some, np.float64, [10.0**-power] * len(some))[1]
        enough = _relative(coef, exact[:, open_]) <= accuracy
        for at in (at for at, good in zip(open_, enough, strict=True) if good):
            found[at] = 10.0**-power
        open_ = [at for at, good in zip(open_, enough, strict=True) if not good]
        if not open_:
            break
    return found


def bench_probe(
    samples: int = 1000,
    blocks: int = 33,
    width: int = 4096,
    cs: tuple[float, ...] = GRID,
    folds: int = 5,
    decay: float = 1.0,
    sklearn_blocks: int | None = 3,
    seed: int = 0,
) -> dict[str, Any]:
    """Time both sides on the same data.

    Args:
        samples, blocks, width: size of the synthetic activations.
        cs: grid of C; folds: number of folds.
        decay: exponent of the spectrum.
        sklearn_blocks: blocks on which the scikit-learn loops run, their time then multiplied; ``None`` for all.
        seed: of the data.

    Returns:
        ``seconds`` and ``ratio`` by variant, ``error`` (largest relative error of coefficients against a
        scikit-learn fit converged to 1e-12, on block 0), ``score_difference``, settings, threads, ``extrapolated``.
    """
    labels = np.random.default_rng(seed).integers(0, 2, samples)
    data = _Synthetic(samples, width, labels, decay, seed)
    fold = group_folds(labels, None, folds, seed)
    masks, settings = fold_masks(fold), Settings()
    measured = blocks if sklearn_blocks is None else min(sklearn_blocks, blocks)
    exact = _sklearn_loop(data.block(0), labels, fold, cs, np.float64, [1e-12] * len(cs))[1]
    equal = _equal_tolerances(data.block(0), labels, fold, cs, exact)
    ways: dict[str, tuple[Any, list[float]]] = {
        "sklearn_float32_default": (np.float32, [1e-4] * len(cs)),
        "sklearn_float64_default": (np.float64, [1e-4] * len(cs)),
        "sklearn_equal_accuracy": (np.float64, equal),
    }
    seconds = dict.fromkeys(["lvlm_lens", *ways], 0.0)
    difference = 0.0
    for block in range(blocks):
        rows = data.block(block)
        begin = time.perf_counter()
        grid = grid_scores(rows, labels[:, None], masks, cs, settings)
        seconds["lvlm_lens"] += time.perf_counter() - begin
        ours = grid[np.arange(samples), fold, 0, :, 0]
        for way, (dtype, tols) in ways.items() if block < measured else ():
            begin = time.perf_counter()
            theirs, _ = _sklearn_loop(rows, labels, fold, cs, dtype, tols)
            seconds[way] += time.perf_counter() - begin
            if way == "sklearn_equal_accuracy":
                difference = max(difference, float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
    rows = data.block(0)
    found = {"lvlm_lens": grid_coefficients(rows, labels[:, None], masks, cs, settings)[0][:, 0, :, 0]}
    found |= {way: _sklearn_loop(rows, labels, fold, cs, *how)[1] for way, how in ways.items()}
    error = {way: float(_relative(coef, exact).max()) for way, coef in found.items()}
    seconds = {way: s if way == "lvlm_lens" else s * blocks / measured for way, s in seconds.items()}
    ratio = {way: seconds[way] / seconds["lvlm_lens"] for way in ways}
    result = {
        "samples": samples, "blocks": blocks, "width": width, "folds": folds, "cs": list(cs), "decay": decay,
        "fits": blocks * folds * len(cs), "threads": torch.get_num_threads(), "extrapolated": measured < blocks,
        "sklearn_blocks": measured, "seconds": seconds, "error": error, "ratio": ratio,
        "score_difference": difference, "equal_tolerances": equal, "headline": ratio["sklearn_equal_accuracy"],
    }  # fmt: skip
    return result


def probe_table(result: dict[str, Any]) -> str:
    """The result of :func:`bench_probe` in words."""
    lines = [
        f"{result['samples']} samples x {result['blocks']} blocks x {result['width']}, {result['folds']} folds, "
        f"{len(result['cs'])} C, {result['fits']} fits, {result['threads']} threads"
    ]
    for way, took in result["seconds"].items():
        times = "" if way == "lvlm_lens" else f"{result['ratio'][way]:6.1f} x"
        lines.append(f"  {way:26s} {took:9.2f} s {times:>9s}  coefficients within {result['error'][way]:.1e}")
    if result["extrapolated"]:
        lines.append(
            f"  scikit-learn measured on {result['sklearn_blocks']} of {result['blocks']} blocks and multiplied"
        )
    return "\n".join(lines)
