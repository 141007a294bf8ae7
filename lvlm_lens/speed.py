"""How fast this machine fits probes and draws figures: timed by making one, with the clock of :mod:`.machine`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import numpy as np
import torch

from .defenses.contest import repeated_splits
from .defenses.probe import LogisticProbe
from .defenses.tuned import coordinates, tuned_scores
from .machine import clock, seconds
from .measures.linear_probe import LinearProbe
from .models.twin import PART, shuffle, unshuffle
from .plots.theme import new_figure, save_figure, theme


@dataclass(frozen=True)
class Speed:
    """Seconds a unit of work.

    Attributes:
        row: one prompt through the whole model, in batches of the asked size; step: one decoding step of a batch.
        probe, probe_plain: one probe on one block with and without shuffles.
        wide_fit: a probe on first-token logits; table: their coordinates; tuned: a probe on those, its C chosen.
        product, product_double: one multiply-add of a matrix product in float32, where the model is, and in float64, on
            the processor.
        shuffle: one weight put into random order, and back; figure: one figure, PNG and SVG; load: the model, from
            disk, and its check.
    """

    row: float
    step: float
    probe: float
    probe_plain: float
    wide_fit: float
    table: float
    tuned: float
    product: float
    product_double: float
    shuffle: float
    figure: float
    load: float


def probe_seconds(n: int, width: int, folds: int, permutations: int, replicates: int) -> tuple[float, float]:
    """One block's probe with and without the null's shuffles, on random numbers of the run's size."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    x = (rng.standard_normal((n, 1, width)) + 0.5 * labels[:, None, None]).astype(np.float32)
    made = []
    for shuffles in (permutations, 0):
        probe = LinearProbe(folds=folds, permutations=shuffles, replicates=replicates)
        start = clock()
        probe.fit(x, labels)
        made.append(clock() - start)
    return made[0], made[1]


def wide_seconds(items: int, vocabulary: int) -> tuple[float, float, float]:
    """On first-token logits of so many items: a probe on half of them; their coordinates; a probe with its C chosen."""
    rows = np.random.default_rng(0).standard_normal((items, vocabulary)).astype(np.float32)
    labels = np.arange(items) % 2
    times = [clock()]
    LogisticProbe(1.0).fit(rows[: items // 2], labels[: items // 2])
    times.append(clock())
    turned = coordinates(rows)
    times.append(clock())
    splits = repeated_splits(labels, np.arange(items), 0, repeats=1)
    tuned_scores(turned, labels, splits.trains, splits.folds)
    times.append(clock())
    fit, table, tuned = np.diff(times)
    return float(fit), float(table), float(tuned) / len(splits.trains)


def product_seconds(device: str, dtype: torch.dtype) -> float:
    """One multiply-add of a matrix product large enough that arithmetic, not memory, sets its speed."""
    x = torch.randn(1024, 1024, device=device, dtype=dtype)
    return seconds(lambda: x @ x, device) / len(x) ** 3


def shuffle_seconds(largest: int, device: str, dtype: torch.dtype) -> float:
    """One weight of the random twin, made and undone, in a part of the size that the largest tensor is cut into."""
    part = torch.zeros(max(1, min(largest, PART)), dtype=dtype, device=device)
    start = clock(device)
    shuffle(part, 0)
    unshuffle(part, 0)
    return (clock(device) - start) / len(part)


def figure_seconds() -> float:
    """One figure of two panels, written as PNG and SVG."""
    x = np.arange(40)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):  # the first one finds the fonts
            start = clock()
            with theme():
                figure = new_figure(6.9, 3.0)
                for axes in figure.subplots(1, 2):
                    for k in range(8):
                        axes.plot(x, np.sin(x + k))
                    axes.fill_between(x, -1, np.sin(x), alpha=0.2)
                save_figure(figure, folder, "timing")
            spent = clock() - start
    return spent
