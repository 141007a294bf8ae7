"""Does a role stay where it is when what should not matter is changed?

A robustness table measures one role again under each variant of each factor (sample, seed, position, template,
pooling ...) and compares onset and interval with the reference.  Variants are given as functions that return a
:class:`~lvlm_lens.stats.curve.Curve`, so nothing here knows about models; :func:`sample_and_seed` makes those that
need only the arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..depth import relative_depth
from ..errors import LensError
from ..measures.blocks import SelectedBlocks
from ..stats.curve import Curve
from ..stats.resampling import half_samples
from .roles import Role, find_role

Variants = Mapping[str, Mapping[str, Callable[[], Curve]]]


def robustness_table(
    role: str, reference: Curve, variants: Variants, expected: tuple[str, ...] | None = ()
) -> pd.DataFrame:
    """Measure every variant.

    Args:
        role: name of the role.
        reference: the curve that was reported.
        variants: ``{factor: {setting: function that returns a curve}}``.
        expected: baselines expected of each curve (:func:`~.roles.find_role`).

    Returns:
        One row a variant, the reference first: ``factor, setting, found, onset, onset_low, onset_high, peak, value``
        (at the best block), ``shift`` (onset minus the reference's, blocks; in relative depth where the block
        counts differ: ``depth_shift``), ``overlaps`` (do the onset intervals meet), ``reason`` (why not found, or the
        error that stopped the measurement: an error is a row, never a missing row).
    """
    base = find_role(role, reference, expected)
    rows = [_row("reference", "", base, base, reference, reference)]
    for factor, settings in variants.items():
        for setting, measure in settings.items():
            try:
                curve = measure()
            except LensError as error:
                rows.append({"factor": factor, "setting": setting, "found": False, "reason": str(error)})
                continue
            rows.append(_row(factor, setting, find_role(role, curve, expected), base, curve, reference))
    return pd.DataFrame(rows)


def _row(factor: str, setting: str, role: Role, base: Role, curve: Curve, reference: Curve) -> dict[str, Any]:
    row: dict[str, Any] = {
        "factor": factor, "setting": setting, "found": role.found, "onset": role.onset, "onset_low": role.onset_low,
        "onset_high": role.onset_high, "peak": role.peak, "value": role.value, "shift": None, "depth_shift": None,
        "overlaps": None, "reason": role.reason,
    }  # fmt: skip
    if role.found and base.found:
        assert role.onset is not None and base.onset is not None
        depth, depth_base = (int(c.meta.get("depth", max(c.blocks) + 1)) for c in (curve, reference))
        row["shift"] = role.onset - base.onset
        row["depth_shift"] = relative_depth(role.onset, depth) - relative_depth(base.onset, depth_base)
        row["overlaps"] = not (role.onset_high < base.onset_low or base.onset_high < role.onset_low)  # type: ignore[operator]
    return row


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a factor: ``variants``, ``same_verdict`` (share), ``largest_shift`` (blocks), ``overlapping`` (share)."""
    base_found = bool(table.iloc[0]["found"])
    rows = []
    for factor, part in table.iloc[1:].groupby("factor", sort=False):
        shifts = part["shift"].dropna().astype(float)
        overlaps = part["overlaps"].dropna().astype(float)
        rows.append(
            {
                "factor": factor, "variants": len(part), "same_verdict": float((part["found"] == base_found).mean()),
                "largest_shift": float(shifts.abs().max()) if len(shifts) else None,
                "overlapping": float(overlaps.mean()) if len(overlaps) else None,
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=["factor", "variants", "same_verdict", "largest_shift", "overlapping"])


SHARES = (2, 4, 8)
"""Fewer groups: a half, a quarter, an eighth."""
LEAST = 20
"""Groups that a variant needs."""


def fewer_items(
    measure: Callable[[Any, Any, Any, int], Curve], activations: Any, labels: Any, groups: Any = None, seed: int = 0
) -> dict[str, Callable[[], Curve]]:
    """Variants on fewer groups, drawn at random: does the onset move with the number of items?

    Arguments as in :func:`sample_and_seed`; the parts are nested, and those of fewer than :data:`LEAST` groups are left
    out.
    """
    labels = np.asarray(labels)
    index = np.unique(np.arange(len(labels)) if groups is None else groups, return_inverse=True)[1].reshape(-1)
    count = int(index.max()) + 1
    place = np.random.default_rng(seed).permutation(count)[index]

    def on(mask: np.ndarray) -> Callable[[], Curve]:
        part = None if groups is None else np.asarray(groups)[mask]
        return lambda: measure(SelectedBlocks(activations, mask), labels[mask], part, 0)

    masks = [place < count // share for share in SHARES if count // share >= LEAST]
    return {f"{int(mask.sum())} items": on(mask) for mask in masks}


def sample_and_seed(
    measure: Callable[[Any, Any, Any, int], Curve],
    activations: Any,
    labels: Any,
    groups: Any = None,
    halves: int = 2,
    seeds: Sequence[int] = (1, 2),
) -> dict[str, dict[str, Callable[[], Curve]]]:
    """Variants that need only the arrays: random halves of the groups (both sides), and other seeds.

    Args:
        measure: ``measure(activations, labels, groups, seed) -> Curve``.
        activations, labels, groups: the data.
        halves: how many random halvings (two variants each).
        seeds: of the measure.
    """
    labels = np.asarray(labels)
    masks = half_samples(groups, len(labels), halves, 0)

    def on(mask: np.ndarray) -> Callable[[], Curve]:
        part = None if groups is None else np.asarray(groups)[mask]
        return lambda: measure(SelectedBlocks(activations, mask), labels[mask], part, 0)

    def with_seed(seed: int) -> Callable[[], Curve]:
        return lambda: measure(activations, labels, groups, seed)

    sides = {f"half {i + 1}{side}": on(m) for i, mask in enumerate(masks) for side, m in (("a", mask), ("b", ~mask))}
    return {"sample": sides, "seed": {f"seed {seed}": with_seed(seed) for seed in seeds}}
