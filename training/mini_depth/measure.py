"""The three design targets, by the toolkit itself: probes by block, their onsets, and patches at the last token.

* ``curve``: joint probe (:class:`lvlm_lens.locate.probe.LinearProbe`, whole quads a fold) beside its baselines.
* ``onsets``: first block at which the strength of the signal has reached half of its plateau, joint harm and harm in
  the words alone, each by the rule of every sweep.
* ``steps``: what one more block adds at the last token when the harmful picture's state is written into the run with
  the harmless picture (:func:`lvlm_lens.causal.patch_grid.patch_grid`), as a share of the whole difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lvlm_lens.causal.patch_grid import patch_grid
from lvlm_lens.data import Dataset, Sample
from lvlm_lens.depth import relative_depth
from lvlm_lens.lens import LVLM
from lvlm_lens.locate.locating import locate_roles
from lvlm_lens.measures.evidence import gather
from lvlm_lens.measures.linear_probe import LinearProbe

from .items import depth_set

EARLY, PATCH_EARLY, LATE = 1 / 4, 1 / 3, 3 / 4
READABLE, LEAD, STEP = 0.85, 2, 0.5
PAIRS = 48
"""Pairs that are patched."""


def _part(data: Dataset, name: str) -> list[Sample]:
    return [sample for sample in data if sample.meta["part"] == name]


def measure(folder: Path, split: str, levels: int, permutations: int = 50, replicates: int = 500) -> dict[str, Any]:
    """Figures of the three targets for a checkpoint folder, on one split."""
    model = LVLM.from_pretrained(str(folder))
    data = depth_set(split, levels)
    found: dict[str, Any] = {"split": split, "blocks": model.n_blocks}
    for part in ("joint", "words"):
        evidence = gather(model, _part(data, part))
        with model.random_twin(0) as shuffled:
            twin = gather(shuffled, _part(data, part))
        probe = LinearProbe(folds=5, permutations=permutations, replicates=replicates)
        located = locate_roles(evidence, twin, probe=probe)
        found[part] = {
            "items": len(evidence),
            "refused": {
                name: float((evidence.log_odds[[s.harmful == harm for s in evidence.samples]] > 0).mean())
                for name, harm in (("harmful", 1), ("harmless", 0))
            },
            "curves": {name: curve.without_draws().to_dict() for name, curve in located.curves.items()},
            "roles": located.roles.to_dict(),
        }
    found["patching"] = _patching(model, _part(data, "joint"))
    return found


def _patching(model: LVLM, samples: list[Sample]) -> dict[str, Any]:
    by_quad: dict[str, list[Any]] = {}
    for pair in Dataset(samples, "pairs").pairs():
        by_quad.setdefault(pair.clean.group, []).append(pair)
    pairs = [pairs[number % len(pairs)] for number, pairs in enumerate(by_quad.values())][:PAIRS]
    grid = patch_grid(model, pairs, ("resid_post", "attn_out", "mlp_out"), "last", direction="denoise")
    return {"pairs": len(pairs), "cells": grid.summary().to_dict("records")}


def write(found: dict[str, Any], path: Path) -> None:
    """Save the figures as JSON."""
    path.write_text(json.dumps(found, indent=1, default=lambda value: np.asarray(value).tolist()) + "\n")


def verdicts(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Whether each target is reached, and by which figures."""
    blocks = found["blocks"]
    depth = relative_depth(np.arange(blocks), blocks)
    curve = found["joint"]["curves"]["perception"]
    value = np.asarray(curve["value"])
    above = np.asarray(curve["null"])
    for baseline in curve["baselines"].values():
        above = np.maximum(above, np.asarray(baseline["high"]))
    early, late = depth <= EARLY, int(np.flatnonzero(depth <= LATE)[-1])
    joint, words = (found[part]["roles"]["perception"]["onset"] for part in ("joint", "words"))
    cells = [cell for cell in found["patching"]["cells"] if relative_depth(cell["block"], blocks) < PATCH_EARLY]
    own = {(cell["site"], cell["block"]): cell["effect"] for cell in cells}
    steps = {
        f"{site} {block}": effect - (own.get((site, block - 1), 0.0) if site == "resid_post" else 0.0)
        for (site, block), effect in own.items()
    }
    largest = max(steps, key=lambda name: steps[name])
    return {
        "a_early": {
            "reached": bool((value[early] <= above[early]).all()),
            "joint": value[early].tolist(),
            "bound": np.broadcast_to(above, value.shape)[early].tolist(),
        },
        "a_late": {
            "reached": bool(value[late] > READABLE),
            "block": late,
            "joint": [float(curve[key][late]) for key in ("value", "low", "high")],
        },
        "b": {
            "reached": joint is not None and words is not None and joint - words >= LEAD,
            "onset_joint": joint,
            "onset_words": words,
        },
        "c": {"reached": steps[largest] <= STEP, "largest_step": steps[largest], "where": largest},
    }
