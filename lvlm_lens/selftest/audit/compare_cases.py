"""Planted comparisons: rates over groups, and two methods that are equally good."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...inference import wilson_bounds
from ...stats.auroc import auroc
from ...stats.equivalence import corrected_contest
from ...stats.groups import paired_test, share_interval
from . import withdrawn
from .case import Case, share_of


def group_cases(draws: int, seed: int) -> Iterator[Case]:
    """Refusals that go by behaviour: ten prompts of a behaviour are refused together or not."""
    rng = np.random.default_rng((seed, 8))
    groups = np.repeat(np.arange(20), 10)
    old, new = [], []
    for _ in range(draws):
        first, second = (rng.random(200) < rng.beta(0.6, 0.6, 20)[groups] for _ in range(2))
        old.append(withdrawn.mcnemar(first, second) < 0.05)
        new.append(paired_test(first.astype(float), second.astype(float), groups, replicates=200).p < 0.05)
    yield Case(
        "defences", "two equal defences, 20 behaviours of 10 prompts", "a difference is claimed", share_of(old),
        share_of(new), most=0.05,
    )  # fmt: skip
    for number, (count, size, a, b) in enumerate(((20, 10, 0.6, 0.6), (20, 10, 0.2, 1.8), (50, 4, 0.6, 0.6))):
        rng = np.random.default_rng((seed, 9, number))
        groups, truth = np.repeat(np.arange(count), size), a / (a + b)
        old, new = [], []
        for _ in range(draws):
            hit = rng.random(count * size) < rng.beta(a, b, count)[groups]
            for kept, bounds in ((old, wilson_bounds(int(hit.sum()), len(hit))), (new, share_interval(hit, groups))):
                kept.append(bounds[0] <= truth <= bounds[1])
        yield Case(
            "rates", f"{count} behaviours of {size} prompts, {100 * truth:.0f} % refused",
            "the interval holds the rate", share_of(old), share_of(new), least=0.9,
        )  # fmt: skip


def contest_cases(draws: int, seed: int) -> Iterator[Case]:
    """Two feature sets that are equally good: the interval must know that both were fitted on one sample."""
    rng = np.random.default_rng((seed, 10))
    old, new, same = [], [], []
    width, n = 32, 1000
    for _ in range(draws):
        labels = rng.permutation(np.arange(n) % 2)
        sets = [rng.standard_normal((n, width)) + np.r_[1.2, np.zeros(width - 1)] * labels[:, None] for _ in range(2)]
        train = np.arange(n) < 200
        first, second = (_discriminant(rows, labels, train)[~train] for rows in sets)
        low, high = withdrawn.test_items_only(first, second, labels[~train], int(rng.integers(2**31)))
        old.append(not low <= 0 <= high)
        apart = []
        for _ in range(15):
            train = rng.permutation(n) < 200
            a, b = (auroc(_discriminant(rows, labels, train)[~train], labels[~train]) for rows in sets)
            apart.append(a - b)
        verdict = corrected_contest(apart, 4.0, 0.02)
        new.append(verdict.p < 0.05)
        same.append(verdict.verdict in ("better", "worse"))
    yield Case(
        "contest", "two equally good probes, 200 to fit and 800 to test", "a difference is claimed", share_of(old),
        share_of(new), most=0.05, note=f"verdict better or worse in {sum(same)}",
    )  # fmt: skip


def scale_cases(draws: int, seed: int) -> Iterator[Case]:
    """The same features three times as large: a probe of fixed C prefers a scale, a tuned one does not."""
    from ...defenses.tuned import coordinates, inner_folds, tuned_scores
    from ...stats.crossfit import Settings, out_of_fold

    old, new = [], []
    for number in range(max(20, draws // 10)):
        rng = np.random.default_rng((seed, 11, number))
        n = 100
        labels, fold = rng.permutation(np.arange(n) % 2), rng.permutation(n) % 5
        rows = rng.standard_normal((n, 64)) + 0.6 * labels[:, None] * (np.arange(64) < 4)
        plain, large = (
            auroc(out_of_fold(x, labels[:, None], fold, [1.0], Settings(False))[0][:, 0, 0], labels, fold)
            for x in (rows, 3 * rows)
        )
        old.append(large < plain - 1e-3)
        train = np.arange(n) < 60
        folds = (inner_folds(labels, np.arange(n), train, 0),)
        first, second = (
            tuned_scores(coordinates(x.astype(np.float32)), labels, train[None], folds)[0][0, ~train]
            for x in (rows, 3 * rows)
        )
        new.append(auroc(second, labels[~train]) < auroc(first, labels[~train]) - 1e-3)
    yield Case(
        "contest", "100 items, 64 features, and the same features times 3", "the larger copy loses", share_of(old),
        share_of(new), most=0.05,
    )  # fmt: skip


def _discriminant(rows: np.ndarray, labels: np.ndarray, train: np.ndarray) -> np.ndarray:
    up, down = rows[train & (labels == 1)], rows[train & (labels == 0)]
    within = np.concatenate([up - up.mean(0), down - down.mean(0)])
    noise = within.T @ within / len(within) + 0.1 * np.eye(rows.shape[1])
    return rows @ np.linalg.solve(noise, up.mean(0) - down.mean(0))
