"""What a defence changes inside the model: its atlas beside the undefended one, in one table.

The three roles are measured on the same items under each defence as without any (:func:`~lvlm_lens.locate.locating.
locate_roles` on the activations that :meth:`~lvlm_lens.defenses.base.Defense.capture` gives), with the same folds,
shuffles and bootstrap draws, so that differences are paired.  Baselines that stand outside the decoder (the bare words,
the picture, the input embeddings) are those of the undefended run.  A defence that acts on the output alone leaves the
table's numbers as they were, and that is its result.  [own]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from ..activations import Activations
from ..data import Sample
from ..errors import LensError
from ..lens import LVLM
from ..locate.locating import Located, locate_roles
from ..measures.evidence import Evidence, gather
from ..measures.lens_reading import read_lens
from ..measures.linear_probe import LinearProbe
from ..measures.spec import ROLE_NAMES
from ..stats.curve import Curve


class Inside(Protocol):
    """A fitted defence whose activations can be captured."""

    name: str

    def capture(self, model: LVLM, data: Sequence[Sample], sites: Any, positions: str) -> Activations:
        """Activations under the defence, rows in the order of ``data``."""


class InsideTable:
    """The undefended atlas, and one row a defence beside it.

    Args:
        model: the undefended model.
        samples: labelled samples, both classes.
        batch_size: rows per forward.
        seed: of folds, shuffles and bootstrap.
    """

    def __init__(self, model: LVLM, samples: Sequence[Sample], batch_size: int = 32, seed: int = 0) -> None:
        self.model, self.samples, self.seed = model, list(samples), seed
        self.before = gather(model, self.samples, batch_size=batch_size)
        self.located = self._located(self.before)
        self.rows = [self._row("none", self.located, None)]

    def _located(self, evidence: Evidence) -> Located:
        return locate_roles(evidence, probe=LinearProbe(permutations=20), seed=self.seed)

    def add(self, defense: Inside) -> dict[str, Any]:
        """Measure one fitted defence; a defence that cannot be captured becomes a row that says why."""
        try:
            located = self._located(self._evidence(defense))
        except LensError as error:
            row = {"system": defense.name, "reason": str(error)}
        else:
            row = self._row(defense.name, located, self.located)
        self.rows.append(row)
        return row

    def _evidence(self, defense: Inside) -> Evidence:
        before, anatomy = self.before, self.model.anatomy
        acts = defense.capture(self.model, before.samples, "resid_post", "last")
        at = {sample.id: row for row, sample in enumerate(before.samples)}
        before = before.rows([at[sample.id] for sample in acts.samples])
        states = acts.view("resid_post", 0)
        found = np.stack([states.block(block) for block in before.blocks], axis=1).astype(np.float32)  # [n, B, d]
        lens, top = [], []
        with torch.inference_mode():
            for start in range(0, len(found), 64):
                some = torch.from_numpy(found[start : start + 64]).to(self.model.device, self.model.dtype)
                read = read_lens(anatomy, some, before.refusal_ids)
                lens.append(read["log_odds"].cpu().numpy())
                top.append(read["top"].cpu().numpy())
        odds, best = np.concatenate(lens), np.concatenate(top)
        return replace(
            before, resid=found, lens_log_odds=odds, lens_top=best, log_odds=odds[:, -1], top=best[:, -1], lens_kl=None
        )

    def _row(self, name: str, located: Located, before: Located | None) -> dict[str, Any]:
        row: dict[str, Any] = {"system": name, "roles": {}}
        for role in ROLE_NAMES:
            curve = located.curves.get(role)
            if curve is None:
                continue
            found = next(r for r in located.roles if r.name == role)
            cell: dict[str, Any] = {
                "found": found.found,
                "onset": found.onset,
                "peak_block": curve.peak,
                "peak": float(curve.value[curve.blocks.index(curve.peak)]),
                "auroc": curve.value.tolist(),
            }
            if before is not None and role in before.curves:
                cell["change"] = _change(curve, before.curves[role])
            row["roles"][role] = cell
        shares = {q["quadrant"]: q["perceived_not_refused"] for q in located.quadrants if q["quadrant"].endswith("U")}
        row["perceived_not_refused"] = shares
        return row


def _change(after: Curve, before: Curve) -> dict[str, Any]:
    """Difference of AUROC, mean over blocks and at the undefended peak, from bootstrap draws that both curves share."""
    assert after.replicates is not None and before.replicates is not None
    at = before.blocks.index(before.peak)
    draws = after.replicates - before.replicates  # [replicate, block]
    changed = after.value - before.value
    found: dict[str, Any] = {}
    for name, value, sample in (
        ("mean", changed.mean(), draws.mean(1)),
        ("at_peak", changed[at], draws[:, at]),
    ):
        low, high = np.nanquantile(sample, [0.025, 0.975])
        found |= {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}
    return {**found, "block": before.peak}
