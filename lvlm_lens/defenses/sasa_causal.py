"""Is it the projection that does it?  Its effect on the refusal log-odds, block by block, and its necessity.

At the last prompt token the logit lens reads the refusal log-odds after every block of the plain pass and
of the projected pass.  Then the residual after block s is split into its projection P and the rest:
*sufficiency* keeps only P, *necessity* takes P away; the separation of harmful from harmless in the final
refusal log-odds says what each part carries.  [own]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..data import Sample
from ..data.groups import groups_of
from ..interventions.recording import record
from ..interventions.rerun import Reruns
from ..lens import LVLM
from ..models.batching import in_batches
from ..models.refusal_tokens import refusal_log_odds, refusal_token_ids
from ..stats.auroc import auroc, weighted_auroc
from ..stats.resampling import Resampling, interval, weighted_mean
from .projection import Cell, edit


@torch.inference_mode()
def lens_log_odds(
    model: LVLM, samples: Sequence[Sample], cells: dict[str, Cell], tokens: Sequence[int], batch_size: int, engine: str
) -> dict[str, np.ndarray]:
    """Refusal log-odds by block, float32 ``[sample, block]``, of ``plain`` and of every cell's pass.

    The last column is the model's own logits; earlier ones are the logit lens.
    """
    anatomy = model.anatomy
    every = list(range(anatomy.n_blocks))
    out = {name: np.zeros((len(samples), anatomy.n_blocks), dtype=np.float32) for name in ("plain", *cells)}

    reruns = Reruns(model, None if engine == "resumed" else engine)

    def read(batch: list[int]) -> None:
        encoded = model.encode([samples[i] for i in batch])
        rec = record(model, encoded, keys=False)
        assert rec.logits is not None
        states = {block: rec.at_last(rec.left[block]) for block in every}
        for block in every:
            out["plain"][batch, block] = refusal_log_odds(anatomy.lens(states[block]), tokens).cpu().numpy()
        out["plain"][batch, -1] = refusal_log_odds(rec.logits, tokens).cpu().numpy()
        for name, cell in cells.items():
            hidden = edit(rec, encoded, cell).hidden
            later = range(cell.safety + 1, anatomy.n_blocks)
            second = reruns.run(rec, encoded, cell.safety, hidden, keep=later)
            values = out[name]
            values[batch] = out["plain"][batch]
            values[batch, cell.safety] = refusal_log_odds(anatomy.lens(rec.at_last(hidden)), tokens).cpu().numpy()
            for block in later:
                values[batch, block] = refusal_log_odds(anatomy.lens(second.states[block]), tokens).cpu().numpy()
            values[batch, -1] = refusal_log_odds(second.logits, tokens).cpu().numpy()

    for _ in in_batches(samples, batch_size, read):
        pass
    return out


def causal_report(
    model: LVLM,
    samples: Sequence[Sample],
    cell: Cell,
    batch_size: int = 32,
    replicates: int = 1000,
    seed: int = 0,
    engine: str = "resumed",
) -> dict[str, Any]:
    """Effect of the projection on refusal log-odds by block, and what its component carries.

    Returns:
        ``by_block``: for harmful and harmless prompts, mean log-odds (nats) plain and projected and the paired
        difference with its interval, one entry a block; ``component``: for ``plain``, ``only_projection``
        (sufficiency) and ``without_projection`` (necessity), the mean difference harmful - harmless of the
        final log-odds and their AUROC, with intervals.
    """
    tokens = refusal_token_ids(model)
    labels = np.array([int(sample.harmful or 0) for sample in samples])
    cells = {
        "only_projection": replace(cell, mode="replace", control="none"),
        "without_projection": replace(cell, control="complement"),
    }
    if cell not in cells.values():
        cells["sasa"] = cell
    odds = lens_log_odds(model, samples, cells, tokens, batch_size, engine)
    projected = odds.get("sasa", odds["only_projection"])
    weights = Resampling(groups_of(samples), replicates, seed).weights()
    by_block: dict[str, list[dict[str, float]]] = {}
    for name, value in (("harmful", 1), ("harmless", 0)):
        rows = np.flatnonzero(labels == value)
        change = projected[rows] - odds["plain"][rows]
        low, high = interval(weighted_mean(change, weights[:, rows]))
        by_block[name] = [
            {
                "block": block,
                "plain": float(odds["plain"][rows, block].mean()),
                "projected": float(projected[rows, block].mean()),
                "difference": float(change[:, block].mean()),
                "low": float(low[block]),
                "high": float(high[block]),
            }
            for block in range(model.n_blocks)
        ]
    component = {name: _separation(odds[name][:, -1], labels, weights) for name in ("plain", *cells)}
    return {"by_block": by_block, "component": component, "samples": len(samples), "refusal_tokens": tokens}


def _separation(final: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Harmful minus harmless mean of the final log-odds, and their AUROC, with intervals."""
    harmful, harmless = labels == 1, labels == 0
    draws = weighted_mean(final[harmful], weights[:, harmful]) - weighted_mean(final[harmless], weights[:, harmless])
    low, high = interval(draws[:, 0])
    a_low, a_high = interval(weighted_auroc(final, labels, weights)[:, 0])
    return {
        "separation": float(final[harmful].mean() - final[harmless].mean()),
        "low": float(low),
        "high": float(high),
        "auroc": float(auroc(final, labels)),
        "auroc_low": float(a_low),
        "auroc_high": float(a_high),
    }
