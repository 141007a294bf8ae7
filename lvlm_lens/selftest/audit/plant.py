"""Activations with a planted rise: one direction of a block carries the label, as strongly as a curve says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WIDTH, PERSISTENCE = 16, 0.8
"""Features of a block, and correlation of an item's noise from block to block."""


def sigmoid_rise(blocks: int, centre: float, length: float) -> np.ndarray:
    """``[block]`` from 0 to 1: 10 to 90 % within ``length`` blocks about ``centre``."""
    return 1 / (1 + np.exp(-(np.arange(blocks) - centre) * 4.394 / length))


def half_block(blocks: int, centre: float, length: float) -> float:
    """Where the rise reaches half of its largest value in the network, a real number."""
    fine = np.linspace(0, blocks - 1, 100 * blocks)
    height = 1 / (1 + np.exp(-(fine - centre) * 4.394 / length))
    return float(fine[np.argmax(height >= height[-1] / 2)])


@dataclass(frozen=True)
class Planted:
    """Activations ``rows [block, item, d]``, labels ``[item]`` in 1 and -1, groups and folds ``[item]``."""

    rows: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    fold: np.ndarray


def plant(
    rng: np.random.Generator,
    n: int,
    strength: np.ndarray,
    positives: float = 0.5,
    group_size: int = 1,
    length: float = 0.0,
) -> Planted:
    """Draw items.

    Args:
        rng: source of chance.
        n: items.
        strength: ``[block]``, distance of the classes in within-class standard deviations.
        positives: share of positive items.
        group_size: items of a group, which share half of the variance of their noise, and their label.
        length: strength, in every block and along another direction, of a trait that correlates .6 with the label.
    """
    blocks = len(strength)
    groups = np.arange(n) // group_size
    count = int(groups[-1]) + 1
    labels = np.where(np.arange(count) < round(count * positives), 1, -1)
    rng.shuffle(labels)
    own = labels[groups]
    fold = (rng.permutation(count) % 5)[groups]
    fresh = rng.standard_normal((blocks, n, WIDTH))
    if group_size > 1:
        fresh = np.sqrt(0.5) * fresh + np.sqrt(0.5) * rng.standard_normal((blocks, count, WIDTH))[:, groups]
    rows = np.empty_like(fresh)
    rows[0] = fresh[0]
    for block in range(1, blocks):
        rows[block] = PERSISTENCE * rows[block - 1] + np.sqrt(1 - PERSISTENCE**2) * fresh[block]
    rows[:, :, 0] += own * strength[:, None] / 2
    if length:
        rows[:, :, 1] += length * correlated(rng, own)
    return Planted(rows, own, groups, fold)


def correlated(rng: np.random.Generator, labels: np.ndarray, correlation: float = 0.6) -> np.ndarray:
    """A standard trait ``[item]`` that correlates with labels in 1 and -1."""
    return correlation * labels + np.sqrt(1 - correlation**2) * rng.standard_normal(len(labels))


def probe_scores(planted: Planted) -> np.ndarray:
    """Out-of-fold scores ``[item, block]`` of a ridge discriminant: what any cross-validated probe gives here."""
    x, y, fold = planted.rows, planted.labels, planted.fold
    scores = np.empty((len(y), len(x)))
    for k in np.unique(fold):
        train, test = fold != k, fold == k
        up, down = x[:, train & (y > 0)], x[:, train & (y < 0)]
        apart = up.mean(1) - down.mean(1)  # [block, d]
        within = np.concatenate([up - up.mean(1, keepdims=True), down - down.mean(1, keepdims=True)], 1)
        noise = np.swapaxes(within, 1, 2) @ within / within.shape[1] + 0.1 * np.eye(x.shape[2])
        weights = np.linalg.solve(noise, apart[..., None])  # [block, d, 1]
        scores[test] = (x[:, test] @ weights)[..., 0].T
    return scores
