"""Planted scores and labels: the best of many values, who is perceived, what length alone can do, pure groups."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import norm

from ...locate.roles import find_role
from ...measures.linear_probe import LinearProbe
from ...stats.choice import fold_curve
from ...stats.curve import Curve
from ...stats.resampling import Resampling
from ...stats.threshold import FALSE_POSITIVES, above_threshold
from .case import Case, Share, share_of
from .plant import correlated, plant

BLOCKS = 30


def best_value_cases(draws: int, seed: int) -> Iterator[Case]:
    """Blocks that are all equally good: is the printed best value near the truth?"""
    for number, (n, truth) in enumerate(((100, 0.695), (300, 0.695), (100, 0.5), (200, 0.9))):
        rng = np.random.default_rng((seed, 3, number))
        strength = float(np.sqrt(2) * norm.ppf(truth))
        old, new, printed = [], [], []
        for _ in range(max(20, draws // 2)):
            labels = rng.permutation(np.arange(n) % 2)
            scores = rng.standard_normal((n, BLOCKS)) + strength * (labels[:, None] - 0.5)
            weights = Resampling(None, 200, int(rng.integers(2**31)), n=n).weights()
            curve = fold_curve("", range(BLOCKS), scores, labels, rng.permutation(n) % 5, weights, ())
            assert curve.best is not None
            top = int(curve.value.argmax())
            old.append(curve.low[top] <= truth <= curve.high[top])
            new.append(curve.best.low <= truth <= curve.best.high)
            printed.append((curve.value[top], curve.best.value))
        means = np.mean(printed, 0)
        yield Case(
            "best value", f"{n} items, {BLOCKS} blocks of AUROC {truth:g}", "the interval holds the truth",
            share_of(old), share_of(new), least=0.9, note=f"printed {means[0]:.3f} and {means[1]:.3f} on average",
        )  # fmt: skip


def perceived_cases(draws: int, seed: int) -> Iterator[Case]:
    """Equal ranking, unequal class balance: a share that is perceived must not follow the balance."""
    n, strength = 300, 1.5
    for number, positives in enumerate((0.09, 0.5, 0.91)):
        rng = np.random.default_rng((seed, 4, number))
        prior = np.log(positives / (1 - positives))
        hits, alarms = np.zeros((2, 2), int), np.zeros((2, 2), int)  # [rule, (count, of)]
        for _ in range(max(20, draws // 5)):
            labels = rng.permutation((np.arange(n) < round(n * positives)).astype(int))
            x = rng.standard_normal((n, 8)) + strength * (labels[:, None] - 0.5)
            scores = strength * x + prior  # the log-odds of a calibrated probe
            for rule, flags in enumerate((scores[:, 0] > 0, above_threshold(scores, labels, rng.permutation(n) % 5))):
                hits[rule] += flags[labels == 1].sum(), (labels == 1).sum()
                alarms[rule] += flags[labels == 0].sum(), (labels == 0).sum()
        old, new = (Share(*row.tolist()) for row in alarms)
        found = [Share(*row.tolist()) for row in hits]
        setting = f"{n} items, d' {strength:g}, {100 * positives:.0f} % harmful"
        yield Case(
            "perceived", setting, "harmless items called perceived", old, new, most=FALSE_POSITIVES + 0.01,
        )  # fmt: skip
        reach = float(norm.sf(norm.isf(FALSE_POSITIVES) - strength))
        yield Case(
            "perceived", setting, "harmful items called perceived", found[0], found[1], reach - 0.05, reach + 0.05,
            note=f"the ROC curve at {FALSE_POSITIVES:.0%} gives {100 * reach:.0f} %",
        )  # fmt: skip


def nuisance_cases(draws: int, seed: int) -> Iterator[Case]:
    """Length that goes along with harm, with and without anything else."""
    n, blocks = 200, 4
    for number, (strength, least, most) in enumerate(((0.0, None, 0.05), (2.5, 0.9, None))):
        rng = np.random.default_rng((seed, 5, number))
        found: list[list[bool]] = [[], []]
        for _ in range(draws if most is not None else max(20, draws // 5)):
            labels = rng.permutation(np.where(np.arange(n) % 2 == 0, 1, -1))
            length = correlated(rng, labels)
            part = plant(rng, n, np.full(blocks, strength))
            rows = part.rows.transpose(1, 0, 2).copy()
            rows[:, :, 0] += ((labels - part.labels) * strength / 2)[:, None]  # the planted signal for these labels
            rows[:, :, 1] += 2 * length[:, None]
            probe = LinearProbe(permutations=20, replicates=200, random_state=int(rng.integers(2**31)))
            curve: Curve = probe.fit(rows.astype(np.float32), (labels > 0).astype(int)).curve_
            tokens = np.round(40 + 12 * length).clip(1)
            features = np.stack([tokens, np.log1p(tokens)], 1)  # as nuisance_features has them
            found[0].append(find_role("perception", curve, ()).found)
            beside = curve.with_baseline("nuisance", probe.baseline(features))
            found[1].append(find_role("perception", beside, ()).found)
        asked = "perception is found" if strength else "perception is found where there is none"
        yield Case(
            "length", f"{n} items, length correlates .6 with harm, d' {strength:g} beside it", asked,
            share_of(found[0]), share_of(found[1]), least, most,
        )  # fmt: skip
