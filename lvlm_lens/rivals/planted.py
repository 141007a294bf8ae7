"""What the constructed models say of each procedure: their safety circuit is written into their weights.

On models of :mod:`lvlm_lens.selftest` (LLaVA architecture, known blocks at which danger is perceived, meaning fused and
refusal expressed) every procedure is run as on any model.  For each, by number of pairs and by strength of the signal:

* *holds*: share of the models that have what is claimed in which the range, one block more at either end, holds the
  true block;
* *error*: mean signed distance of the range's first block from the truth where there is a range (of several true
  blocks, the nearest), and its mean size;
* *width*: mean number of blocks of the range as a share of the depth: a range over all blocks holds everything;
* *false alarms*: share of the models in which harm is nowhere in which there is a range all the same.

Strength is the distance of the two means along the written direction, in standard deviations of the nuisance there.
What a procedure needs and these models do not have (captions) is ``None``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Pair
from ..errors import UsageError
from ..inference import share
from ..measures.evidence import gather
from ..selftest.constructed import build
from ..selftest.items import draw_items
from ..selftest.plan import SEPARATIONS, Plan, draw_plan
from ..storage.pieces import Pieces
from .bench import ask
from .procedure import Procedure
from .read import read_all

KINDS = ("all", "nothing", "all", "no_expression", "reversed", "nothing")
"""Kinds of models, by turns."""
PAIRS = (40, 150)


@dataclass(frozen=True)
class PlantedOutcome:
    """One procedure on one model: ``truths`` are the blocks that it should hold, empty where there are none."""

    procedure: str
    pairs: int
    separation: float
    kind: str
    depth: int
    truths: tuple[int, ...]
    first: int | None
    last: int | None
    asked: bool

    @property
    def holds(self) -> bool:
        """Whether the range, one block wider at each end, holds a true block."""
        if self.first is None or self.last is None:
            return False
        return any(self.first - 1 <= truth <= self.last + 1 for truth in self.truths)

    @property
    def error(self) -> float:
        """Signed distance of the range's first block from the nearest truth, blocks; NaN where one is missing."""
        if self.first is None or not self.truths:
            return float("nan")
        return float(min((self.first - truth for truth in self.truths), key=abs))


def run_planted(
    procedures: Sequence[Procedure],
    models: int = 18,
    pairs: Sequence[int] = PAIRS,
    seed: int = 5,
    out: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Ask every procedure on ``models`` constructed models.

    Args:
        procedures: in order; models: number of them, of all kinds and strengths by turns; pairs: sample sizes, the
            smaller ones the first pairs of the largest; seed: of models and items.
        out: folder where each model's outcomes are kept: a run that was stopped goes on; ``None`` keeps nothing.
        progress: called with ("constructed models", done, all).

    Returns:
        JSON-ready: settings, ``rows`` (one a procedure, pairs and strength, and one over all strengths), ``trials``.
    """
    sizes = sorted(set(pairs))
    if models < 1 or not sizes or sizes[0] < 20:
        raise UsageError(f"{models} models of {list(pairs)} pairs; give a model and at least 20 pairs")
    outcomes: list[PlantedOutcome] = []
    if progress is not None:
        progress("constructed models", 0, models)
    for number in range(models):
        outcomes += _kept_model(out, number, seed, procedures, sizes)
        if progress is not None:
            progress("constructed models", number + 1, models)
    return {
        "models": models, "pairs": sizes, "seed": seed, "rows": tabulate(outcomes),
        "trials": [asdict(outcome) for outcome in outcomes],
    }  # fmt: skip


def _kept_model(
    folder: Path | None, number: int, seed: int, procedures: Sequence[Procedure], sizes: Sequence[int]
) -> list[PlantedOutcome]:
    """One model's outcomes, from the folder where they are there for just these settings."""
    names = [procedure.name for procedure in procedures]
    head = {"seed": seed, "model": number, "pairs": list(sizes), "procedures": names}

    def make() -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {"outcomes": [asdict(outcome) for outcome in one_model(_plan(number, seed), procedures, sizes)]}

    kept = Pieces(folder, head).made(f"model-{number:03d}", make)
    return [PlantedOutcome(**{**row, "truths": tuple(row["truths"])}) for row in kept.facts["outcomes"]]


def _plan(number: int, seed: int) -> Plan:
    """Kinds by turns, strengths by turns of them, so that every pair of both comes up."""
    kind = KINDS[number % len(KINDS)]
    strength = SEPARATIONS[(number // len(KINDS) + number) % len(SEPARATIONS)]
    return replace(draw_plan(1000 * seed + number, kind), separation=strength)


def one_model(plan: Plan, procedures: Sequence[Procedure], sizes: Sequence[int]) -> list[PlantedOutcome]:
    """Build a model, read it once at the largest size, ask at every size."""
    model = build(plan)
    items = draw_items(plan, max(sizes))
    pairs = [Pair(items[i], items[i + 1], "text") for i in range(0, len(items), 2)]  # harmful and harmless by turns
    wanted = {name for procedure in procedures for name in procedure.reads}
    evidence = gather(model, items, batch_size=100)
    readings = read_all(model, evidence, pairs, batch_size=100, seed=plan.seed, wanted=wanted)
    made = []
    for size in sizes:
        part = readings.rows(np.arange(2 * size))
        for procedure in procedures:
            found = ask(procedure, part)
            blocks = [getattr(plan, name) for name in procedure.truths]
            asked = not isinstance(found, str)
            made.append(
                PlantedOutcome(
                    procedure.name, size, plan.separation, plan.kind, plan.depth,
                    tuple(b for b in blocks if b is not None),
                    None if isinstance(found, str) else found.first, None if isinstance(found, str) else found.last,
                    asked,
                )
            )  # fmt: skip
    return made


def tabulate(outcomes: Sequence[PlantedOutcome]) -> list[dict[str, Any]]:
    """Rows by procedure, number of pairs and strength (``None``: all)."""
    rows = []
    for name in dict.fromkeys(o.procedure for o in outcomes):
        own = [o for o in outcomes if o.procedure == name]
        for size in sorted({o.pairs for o in own}):
            for strength in (None, *sorted({o.separation for o in own})):
                chosen = [o for o in own if o.pairs == size and strength in (None, o.separation)]
                rows.append({"procedure": name, "pairs": size, "separation": strength, **_row(chosen)})
    return rows


def _row(outcomes: Sequence[PlantedOutcome]) -> dict[str, Any]:
    present = [o for o in outcomes if o.truths]
    absent = [o for o in outcomes if o.kind == "nothing"]
    ranged = [o for o in present if o.first is not None]
    errors = [o.error for o in ranged]
    widths = [(o.last - o.first + 1) / o.depth for o in ranged if o.last is not None and o.first is not None]
    return {
        "asked": sum(o.asked for o in outcomes),
        "holds": share(sum(o.holds for o in present), len(present)),
        "found": share(len(ranged), len(present)),
        "bias": float(np.mean(errors)) if errors else None,
        "error": float(np.mean(np.abs(errors))) if errors else None,
        "width": float(np.mean(widths)) if widths else None,
        "false_alarms": share(sum(o.first is not None for o in absent), len(absent)),
    }


@cache
def load_record() -> dict[str, Any]:
    """The recorded study, without trials: what ``lvlm-lens rivals --constructed N --out DIR`` wrote."""
    return json.loads(files(__package__).joinpath("planted.json").read_text("utf-8"))


def planted_row(procedure: str, separation: float | None = None, largest: bool = True) -> dict[str, Any] | None:
    """The recorded row of a procedure at the largest (or smallest) number of pairs; ``None`` where it has none."""
    record = load_record()
    size = record["pairs"][-1 if largest else 0]
    for row in record["rows"]:
        if (row["procedure"], row["pairs"], row["separation"]) == (procedure, size, separation):
            return row
    return None
