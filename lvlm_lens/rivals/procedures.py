"""The procedures of the claims that this field argues about: HiddenDetect, Safety Layers, TGA, CARE, heads, ShiftDC ...

Each is the published rule as far as it could be read; what is this project's reading stands in the procedure's
``rule`` in :mod:`.registry`.
"""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from ..measures.angular_gap import AngularGap
from ..measures.blocks import ArrayBlocks
from ..stats.auroc import weighted_auroc
from .procedure import NOTHING, Found, longest_run, span
from .readings import Readings

FEWEST = 5
"""Items (or pairs) below which a share or a mean says nothing."""
TOP_HEADS = 8
WINDOW = 3
"""Blocks of a range where the published ranges hold three."""


def hiddendetect(r: Readings) -> Found:
    """Blocks whose difference of refusal cosines (FDV) exceeds the last block's."""
    assert r.cosines is not None
    fdv = r.cosines[r.harmful].mean(0) - r.cosines[~r.harmful].mean(0)
    first, last = span(r.blocks, fdv > fdv[-1])
    peak = None if first is None else r.blocks[int(fdv.argmax())]
    return Found(first, last, peak, fdv, "cosine difference", len(r))


def safety_layers(r: Readings) -> Found:
    """From where the angular gap shows to where it first stops growing."""
    assert r.last is not None
    gap = AngularGap(replicates=60, permutations=20).fit(ArrayBlocks(r.last, r.blocks), r.labels, r.groups)
    first, last = gap.range_ or NOTHING
    values = gap.curve_.value
    return Found(first, last, None if first is None else r.blocks[int(values.argmax())], values, "radians", len(r))


def says_refusal_from(r: Readings) -> np.ndarray:
    """First place from which the lens's top token is the model's own refusal token and stays; -1 for other items."""
    assert r.lens_top is not None and r.top is not None
    same = r.lens_top == r.top[:, None]
    stays = np.logical_and.accumulate(same[:, ::-1], axis=1)[:, ::-1]
    return np.where(np.isin(r.top, r.refusal_ids) & stays[:, -1], stays.argmax(1), -1)


def tga(r: Readings) -> Found:
    """Where the refusal token becomes the lens's first choice and stays: the middle 80 % of harmful refused items."""
    at = says_refusal_from(r)[r.harmful]
    at = at[at >= 0]
    if len(at) < FEWEST:
        raise DataError(f"{len(at)} harmful items are refused with a refusal token; at least {FEWEST} are needed")
    low, high = np.quantile(at, [0.1, 0.9], method="inverted_cdf")
    counts = np.bincount(at, minlength=len(r.blocks))
    values = counts.cumsum() / len(at)
    return Found(
        r.blocks[int(low)], r.blocks[int(high)], r.blocks[int(counts.argmax())], values, "share of refused", len(at)
    )


def care(r: Readings) -> Found:
    """The three neighbouring blocks whose MLP outputs carry most of the pairs' difference."""
    assert r.drop is not None and r.gap is not None
    known = np.isfinite(r.gap)
    if known.sum() < FEWEST:
        raise DataError(f"{int(known.sum())} matched pairs; at least {FEWEST} are needed")
    values = r.drop[known].sum(0) / r.gap[known].sum()
    width = min(WINDOW, len(values))
    sums = np.convolve(values, np.ones(width), "valid")
    start = int(sums.argmax())
    return Found(
        r.blocks[start], r.blocks[start + width - 1], r.blocks[int(values.argmax())], values, "share of the difference",
        int(known.sum()),
    )  # fmt: skip


def safety_heads(r: Readings) -> Found:
    """Blocks of the heads whose probes are right most often: the middle half of the best eight."""
    assert r.heads_right is not None and r.head_blocks is not None
    accuracy = r.heads_right.mean(0)
    best = np.argsort(-accuracy, kind="stable")[:TOP_HEADS]
    at = np.sort(r.head_blocks[best])
    low, high = np.quantile(at, [0.25, 0.75], method="inverted_cdf")
    values = np.array([accuracy[r.head_blocks == block].max(initial=np.nan) for block in r.blocks])
    return Found(int(low), int(high), int(r.head_blocks[best[0]]), values, "accuracy of the best head", len(r))


def shiftdc(r: Readings) -> Found:
    """Blocks in which pictures push harmful requests against the words' harmful direction."""
    assert r.push is not None
    rows = r.push[r.harmful & np.isfinite(r.push).all(1)]
    if len(rows) < FEWEST:
        raise DataError(f"{len(rows)} harmful items with picture and caption; at least {FEWEST} are needed")
    mean, error = rows.mean(0), rows.std(0, ddof=1) / np.sqrt(len(rows))
    first, last = span(r.blocks, longest_run(mean + 1.96 * error < 0))
    at = int(mean.argmin())
    others = r.push[~r.harmful & np.isfinite(r.push).all(1)]
    # a push that harmless requests get as well is one of pictures, not of danger
    beside = (
        ""
        if not len(others)
        else f"at block {r.blocks[at]}: harmful {mean[at]:+.2f}, harmless {others[:, at].mean():+.2f}"
    )
    return Found(first, last, None if first is None else r.blocks[at], mean, "shares", len(rows), beside)


def first_token(r: Readings) -> Found:
    """After the last block, where the first token's logits tell harmful from harmless."""
    assert r.first_token is not None
    area = float(weighted_auroc(r.first_token, r.labels, None, r.fold)[0, 0])
    up, down = int(r.harmful.sum()), int((~r.harmful).sum())
    # Hanley & McNeil 1982: the standard error of an area of one half
    chance = np.sqrt((up + down + 1) / (12 * up * down))
    end = r.depth - 1
    seen = end if area > 0.5 + 1.645 * chance else None
    return Found(seen, seen, seen, np.array([area]), "AUROC", len(r), f"AUROC {area:.3f}")
