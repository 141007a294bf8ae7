"""SASA in a contest: which cells it may choose from, and who its rivals are.

* ``no_projection``: the same features of the plain pass.
* ``rerun``: the later blocks run again on the fused block's own state, nothing projected; it chooses among as many
  cells as SASA does.
* ``single_block``: the plain residual after one block, chosen among all, read through the same head where SASA's
  features are logits, so that the width is the same.  [own]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..lens import LVLM
from ..progress import each, part
from .contest import MARGIN, decide, enter, repeated_splits
from .extraction import Extracted, extract, usable
from .projection import Cell
from .sasa_map import Split
from .tuned import coordinates

MEANINGS = {
    "no_projection": "the same probe without projection",
    "rerun": "the later blocks run again without projection",
    "single_block": "the best single block",
}


def run_contest(
    model: LVLM,
    split: Split,
    made: Extracted,
    cells: Sequence[Cell],
    features: str,
    batch_size: int,
    repeats: int,
    margin: float = MARGIN,
) -> list[dict[str, Any]]:
    """A row a rival, over all labelled samples of both parts.

    Args:
        model: the model.
        split: training and test samples, which are pooled and split anew.
        made: features of the plain pass, with residuals after every block, and of ``cells``.
        cells: what SASA may choose from.
        features: as in :func:`~lvlm_lens.defenses.sasa.extract`.
        batch_size: rows per forward.
        repeats: of the cross-validation (:func:`~lvlm_lens.defenses.contest.repeated_splits`).
        margin: of equivalence.
    """
    again = {cell: replace(cell, control="rerun") for cell in cells}
    with part(0.0, 0.3, "passes without projection"):
        reruns = extract(
            model, split.samples, list(again.values()), features, batch_size, engine=made.engine  # type: ignore[arg-type]
        )  # fmt: skip
    splits = repeated_splits(split.labels, split.groups, split.seed, repeats)
    with part(0.3, 0.6, "SASA"):
        entries = {"sasa": enter(((_name(cell), coordinates(made.cells[cell])) for cell in each(cells)), splits)}
    entries["no_projection"] = enter([("plain", coordinates(made.plain))], splits)
    with part(0.6, 0.85, "the later blocks run again"):
        rows = ((_name(cell), coordinates(reruns.cells[other])) for cell, other in each(list(again.items())))
        entries["rerun"] = enter(rows, splits)
    with part(0.85, 1.0, "single blocks"):
        entries["single_block"] = enter(_single_blocks(model, made, features), splits)
    return [{"meaning": MEANINGS[row["rival"]], **row} for row in decide(entries, "sasa", splits, margin)]


def _name(cell: Cell) -> str:
    return f"s = {cell.safety}, f = {cell.fused}"


def _single_blocks(model: LVLM, made: Extracted, features: str) -> Iterator[tuple[str, np.ndarray]]:
    for block in each(range(model.n_blocks)):
        rows = made.plain_resid[block]
        if features == "logits":
            with torch.inference_mode():
                states = torch.from_numpy(rows).to(model.device, model.dtype)
                rows = usable(model.anatomy.lens(states).float()).cpu().numpy()
        yield f"block {block}", coordinates(rows)


def contest_line(row: Mapping[str, Any]) -> str:
    """One row in words."""
    told = f"{row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}], p = {row['p']:.3f}"
    chose = f"it chose {row['rival_chose']} in {row['rival_chose_in']} of {row['splits']} splits"
    return (
        f"against {row['meaning']}: {row['verdict']}, {row['auroc']:.3f} and {row['rival_auroc']:.3f}, {told}, "
        f"equivalent within {row['margin']:g}: p = {row['p_equivalent']:.3f} ({chose}, SASA {row['sasa_chose']} in "
        f"{row['sasa_chose_in']})"
    )
