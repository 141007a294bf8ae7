"""Every procedure beside every other on the same readings: range, interval, and what it finds in shuffled labels.

The interval of a range's ends comes from halves of the groups drawn without replacement (subsampling: Politis & Romano,
Annals of Statistics 22, 1994), the whole procedure run again on each: no item stands twice, so pairs of items and
cross-validation stay honest, which a bootstrap breaks.  It is not rescaled: it is the spread at half the items, wider
than that at all of them, and widened to hold the range that all items give.  ``in_halves`` is the share of halves in
which there is a range at all, ``in_shuffled`` the same share under shuffled labels (within groups where groups hold
both): a procedure that finds a range there as well finds one anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..depth import relative_depth
from ..errors import LensError
from ..progress import each, stage
from ..stats.resampling import permute_labels
from .procedure import Found, Procedure
from .readings import Readings


@dataclass(frozen=True)
class Rival:
    """One row of the comparison.

    Attributes:
        name, title, source, claim, rule: of the procedure.
        state: ``found``, ``nothing`` (it ran and found no range), ``placed`` (blocks fixed by depth), or ``not asked``
            with ``reason``.
        first, last, peak: blocks; ``first_low`` ... ``last_high``: 95 % of the halves, ``None`` where fewer than ten of
            them gave a range.
        depth_first, depth_last: relative depths of the range's ends.
        in_halves, in_shuffled: see the module; ``None`` where not asked.
        n: items or pairs; unit: of ``values``; values: by block, what the procedure looks at; blocks: their numbers.
        published: ranges with relative depths.
        note: in words.
    """

    name: str
    title: str
    source: str
    claim: str
    rule: str
    state: str
    reason: str = ""
    first: int | None = None
    last: int | None = None
    peak: int | None = None
    first_low: int | None = None
    first_high: int | None = None
    last_low: int | None = None
    last_high: int | None = None
    depth_first: float | None = None
    depth_last: float | None = None
    in_halves: float | None = None
    in_shuffled: float | None = None
    n: int = 0
    unit: str = ""
    values: tuple[float | None, ...] = ()
    blocks: tuple[int, ...] = ()
    published: tuple[dict[str, Any], ...] = ()
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @property
    def line(self) -> dict[str, Any]:
        """Plain cells of a table: no lists."""
        return {key: value for key, value in asdict(self).items() if key not in ("values", "blocks", "published")}


LEAST_DRAWS = 10
"""Draws with a range below which there is no interval."""


def run_rivals(
    readings: Readings,
    procedures: Sequence[Procedure],
    draws: int = 40,
    seed: int = 0,
) -> list[Rival]:
    """Run procedures on the same readings.

    Args:
        readings: of one model on one data set.
        procedures: in order.
        draws: halves of the groups, and shuffles of the labels.
        seed: of both.
    """
    halves = half_groups(readings.groups, draws, seed)
    shuffled = permute_labels(readings.labels, readings.groups, draws, seed + 1)
    with stage("asking each claim"):
        asked = each(procedures, lambda procedure: procedure.title)
        return [_one(procedure, readings, halves, shuffled) for procedure in asked]


def half_groups(groups: np.ndarray, draws: int, seed: int) -> list[np.ndarray]:
    """Row numbers of ``draws`` random halves of the groups, whole groups, sorted."""
    names, index = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng((61, seed))
    keep = max(1, len(names) // 2)
    return [np.flatnonzero(np.isin(index, rng.permutation(len(names))[:keep])) for _ in range(draws)]


def ask(procedure: Procedure, readings: Readings) -> Found | str:
    """What a procedure finds, or why it cannot be asked."""
    if why := readings.missing(procedure.reads):
        return why
    try:
        return procedure.run(readings)
    except LensError as error:
        return str(error)


def _one(procedure: Procedure, readings: Readings, halves: list[np.ndarray], shuffled: np.ndarray) -> Rival:
    published = tuple({**asdict(p), "depths": list(p.depths)} for p in procedure.published)
    known: dict[str, Any] = {
        "name": procedure.name, "title": procedure.title, "source": procedure.source, "claim": procedure.claim,
        "rule": procedure.rule, "published": published,
    }  # fmt: skip
    found = ask(procedure, readings)
    if isinstance(found, str):
        return Rival(**known, state="not asked", reason=found)
    values = () if found.values is None else tuple(float(v) if np.isfinite(v) else None for v in found.values)
    known |= {
        "first": found.first, "last": found.last, "peak": found.peak, "n": found.n, "unit": found.unit,
        "values": values, "blocks": readings.blocks, "note": _note(procedure, readings, found),
    }  # fmt: skip
    if found.first is not None and found.last is not None:
        known |= {
            "depth_first": relative_depth(found.first, readings.depth),
            "depth_last": relative_depth(found.last, readings.depth),
        }
    if procedure.placed:
        return Rival(**known, state="placed")
    drawn = [f for rows in halves if not isinstance(f := ask(procedure, readings.rows(rows)), str)]
    ranges = np.array([(f.first, f.last) for f in drawn if f.found], dtype=float).reshape(-1, 2)
    if len(ranges) >= LEAST_DRAWS:
        low, high = np.quantile(ranges, [0.025, 0.975], axis=0, method="inverted_cdf").astype(int)
        if (
            found.first is not None and found.last is not None
        ):  # half of the items can put it elsewhere than all of them
            low, high = np.fmin(low, [found.first, found.last]), np.fmax(high, [found.first, found.last])
        known |= {
            "first_low": int(low[0]), "first_high": int(high[0]), "last_low": int(low[1]), "last_high": int(high[1])
        }  # fmt: skip
    known["in_halves"] = len(ranges) / len(halves) if halves else None
    if procedure.labels and len(shuffled):
        others = [ask(procedure, readings.relabelled(labels)) for labels in shuffled]
        known["in_shuffled"] = sum(not isinstance(f, str) and f.found for f in others) / len(others)
    return Rival(**known, state="found" if found.found else "nothing")


def _note(procedure: Procedure, readings: Readings, found: Found) -> str:
    said = [found.note] if found.note else []
    if procedure.pictures == "claimed" and not readings.pictures:
        said.append("the claim is about a model that reads pictures; these items are words alone")
    if procedure.pictures == "no" and readings.pictures:
        said.append("the claim is about words alone; some of these items show pictures")
    return "; ".join(said)
