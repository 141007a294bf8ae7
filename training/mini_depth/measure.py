"""The three design targets, by the toolkit itself: probes by block, their onsets, and patches at the last token.

* ``curve``: joint probe (:class:`lvlm_lens.measures.linear_probe.LinearProbe`, whole quads a fold) beside its
  baselines.
* ``onsets``: first block at which the strength of the signal has reached half of its plateau
  (:mod:`lvlm_lens.stats.onset`), joint harm and harm in the words alone.
* ``steps``: what one more block adds at the last token when the harmful picture's state is written into the run with
  the harmless picture (:func:`lvlm_lens.causal.patch_grid.patch_grid`), as a share of the whole difference.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from lvlm_lens.cards.mini import Speaker, naming, refusal_rates, wilson
from lvlm_lens.causal.patch_grid import patch_grid
from lvlm_lens.data import Dataset, Sample
from lvlm_lens.data.mini import load_mini
from lvlm_lens.data.mini.heldout import styles_of
from lvlm_lens.data.mini.objects import THINGS
from lvlm_lens.depth import relative_depth
from lvlm_lens.lens import LVLM
from lvlm_lens.locate.locating import locate_roles
from lvlm_lens.measures.evidence import gather
from lvlm_lens.measures.items import harm_labels
from lvlm_lens.measures.linear_probe import LinearProbe
from lvlm_lens.stats.groups import bootstrap_ratio
from lvlm_lens.stats.onset import HEIGHTS

from .items import depth_set

EARLY, PATCH_EARLY, LATE = 1 / 4, 1 / 3, 3 / 4
READABLE, LEAD, STEP = 0.85, 2, 0.5
PERMUTATIONS, REPLICATES = 20, 400
SITES = ("resid_post", "attn_out", "mlp_out")


def _part(data: Dataset, name: str) -> list[Sample]:
    return [sample for sample in data if sample.meta["part"] == name]


def measure(folder: Path, split: str, levels: int) -> dict[str, Any]:
    """Figures of the targets for a checkpoint folder, on one split."""
    model = LVLM.from_pretrained(str(folder))
    data = depth_set(split, levels)
    found: dict[str, Any] = {"split": split, "blocks": model.n_blocks}
    for part in ("joint", "words"):
        evidence = gather(model, _part(data, part))
        with model.random_twin(0) as shuffled:
            twin = gather(shuffled, _part(data, part))
        located = locate_roles(evidence, twin, probe=LinearProbe(permutations=PERMUTATIONS, replicates=REPLICATES))
        harmful, refused = harm_labels(evidence.samples) == 1, evidence.log_odds > 0
        found[part] = {
            "items": len(evidence),
            "harmful_refused": wilson(int(refused[harmful].sum()), int(harmful.sum())),
            "harmless_refused": wilson(int(refused[~harmful].sum()), int((~harmful).sum())),
            "curves": {name: curve.without_draws().to_dict() for name, curve in located.curves.items()},
            "roles": located.roles.to_dict(),
        }
    found["steps"] = _steps(model, _part(data, "joint"))
    found["card"] = _card(folder, split)
    return found


def _steps(model: LVLM, samples: list[Sample]) -> list[dict[str, Any]]:
    """What each block adds at the last token, of one pair a quad: share of the whole difference, with its interval."""
    by_quad: dict[str, list[Any]] = {}
    for pair in Dataset(samples, "pairs").pairs():
        by_quad.setdefault(pair.clean.group, []).append(pair)
    pairs = [some[number % len(some)] for number, some in enumerate(by_quad.values())]
    grid = patch_grid(model, pairs, SITES, "last", direction="denoise", null=0)
    shift = grid.values[0, :, :, 0] - grid.corrupted  # [site, block, pair]
    found = []
    for site, moved in zip(grid.sites, shift, strict=True):
        added = np.diff(moved, axis=0, prepend=0.0) if site == "resid_post" else moved  # [block, pair]
        gaps = grid.clean - grid.corrupted
        low, high = bootstrap_ratio(added, gaps, grid.groups)
        for block, share in enumerate(added.sum(1) / gaps.sum()):
            step = {"value": float(share), "low": float(low[block]), "high": float(high[block])}
            found.append({"site": site, "block": block, "pairs": len(pairs), **step})
    return found


def _card(folder: Path, split: str) -> dict[str, Any]:
    """The card's other targets: naming, and harm told in words (:mod:`lvlm_lens.cards.mini`)."""
    speaker = Speaker(folder)
    styles = [styles_of(thing)[place % len(styles_of(thing))] for place, thing in enumerate(THINGS)]
    told = [sample.without_images() for sample in load_mini(split) if sample.meta["part"] == "joint"]
    return {
        "naming": naming(speaker, list(THINGS), styles, each=1, seed=1),
        "told_joint": refusal_rates(speaker.replies([sample.text for sample in told]), told),
    }


def write(found: dict[str, Any], path: Path) -> None:
    """Save the figures as JSON."""
    path.write_text(json.dumps(found, indent=1, default=lambda value: np.asarray(value).tolist()) + "\n")


def _onset(curve: dict[str, Any]) -> int | None:
    """First block at half of the plateau's strength.  Not the role's: harm that stands in the words is no finding."""
    half = curve["rise"]["at"][HEIGHTS.index(0.5)]
    return None if half is None else math.ceil(half)


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
    joint, words = (_onset(found[part]["curves"]["perception"]) for part in ("joint", "words"))
    steps = [step for step in found["steps"] if relative_depth(step["block"], blocks) < PATCH_EARLY]
    largest = max(steps, key=lambda step: step["value"])
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
        "c": {"reached": largest["value"] <= STEP, "largest": largest},
    }
