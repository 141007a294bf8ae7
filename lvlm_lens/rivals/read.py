"""Read a model once for all procedures; each part is kept in the run folder as soon as it is there.

A part that this model or these data cannot give (no pictures, no captions, no pairs that behave differently) is left
out with its reason; the procedures that need it then say so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..activations.capture import capture
from ..causal.patch_grid import patch_grid
from ..data import Pair, Sample
from ..defenses.sasa import out_of_fold
from ..defenses.shiftdc import ShiftDC
from ..errors import DataError, LensError
from ..lens import LVLM
from ..measures.evidence import Evidence
from ..measures.items import group_names, harm_labels, joint_items
from ..measures.refusal_lens import RefusalLens
from ..measures.unembedding import unembedding_of
from ..progress import stage
from ..stats.resampling import group_folds
from ..storage.pieces import Pieces
from .readings import Readings

FOLDS = 5
MOST_PAIRS = 24
"""Pairs that are patched: each costs up to a forward per block."""


def read_all(
    model: LVLM,
    evidence: Evidence,
    pairs: Sequence[Pair] | None = None,
    out: Path | None = None,
    batch_size: int = 32,
    seed: int = 0,
    wanted: Collection[str] | None = None,
) -> Readings:
    """Everything the procedures read.

    Args:
        model: the model.
        evidence: its evidence at the last prompt token, all blocks (:func:`~lvlm_lens.measures.evidence.gather`).
        pairs: matched pairs, ``clean`` the harmful member; those that behave differently are patched.
        out: folder where finished parts are kept; ``None`` keeps nothing.
        batch_size: rows per forward.
        seed: of folds and of the choice of pairs.
        wanted: fields of :class:`~.readings.Readings` that are needed; all by default.

    Raises:
        DataError: no labelled samples of both classes.
    """
    known = np.flatnonzero(harm_labels(evidence.samples) >= 0)
    evidence = evidence.rows(known)
    samples = evidence.samples
    labels, groups = harm_labels(samples), group_names(samples)
    if len(set(labels.tolist())) < 2:
        raise DataError(f"{len(samples)} labelled samples of one class; harmful and harmless ones are needed")
    parts: dict[str, Callable[[], Mapping[str, np.ndarray]]] = {
        "mean": lambda: {"mean": _mean(model, samples, evidence.blocks, batch_size)},
        "cosines": lambda: {"cosines": _cosines(model, evidence)},
        "heads": lambda: _heads(model, samples, labels, groups, batch_size, seed),
        "push": lambda: {"push": _push(model, samples, evidence.blocks, batch_size)},
        "pairs": lambda: _mediated(model, evidence, pairs or (), out, seed),
        "first_token": lambda: _first_token(model, evidence, labels, groups, seed),
    }
    pieces = Pieces(out)
    made: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for name, read in parts.items():
        if wanted is not None and not set(wanted) & set(_GIVES.get(name, (name,))):
            continue
        with stage(f"reading: {name.replace('_', ' ')}"):
            found = pieces.made(name, partial(_tried, read))
        made |= found.arrays
        if "reason" in found.facts:
            reasons |= dict.fromkeys(_GIVES.get(name, (name,)), found.facts["reason"])
    return Readings(
        labels=labels,
        groups=groups,
        joint=joint_items(samples),
        blocks=evidence.blocks,
        depth=evidence.depth,
        pictures=any(sample.images for sample in samples),
        refusal_ids=evidence.refusal_ids,
        last=evidence.resid,
        lens_top=evidence.lens_top,
        top=evidence.top,
        reasons=reasons,
        **made,
    )


_GIVES = {"heads": ("heads_right", "head_blocks"), "pairs": ("drop", "gap"), "first_token": ("first_token", "fold")}


def _tried(read: Callable[[], Mapping[str, np.ndarray]]) -> tuple[Mapping[str, np.ndarray], dict[str, str]]:
    """What ``read`` gives, or the reason why it cannot be had."""
    try:
        return read(), {}
    except LensError as error:
        return {}, {"reason": str(error)}


def _mean(model: LVLM, samples: Sequence[Sample], blocks: Sequence[int], batch_size: int) -> np.ndarray:
    """resid_post averaged over every prompt token, float32 ``[n, B, d]``."""
    sites = [f"blocks.{block}.hook_resid_post" for block in blocks]
    return capture(model, samples, sites, "all", reduce="mean", batch_size=batch_size)["resid_post"][:, :, 0]


def _cosines(model: LVLM, evidence: Evidence) -> np.ndarray:
    """HiddenDetect's F, ``[n, B]``; raw, as published."""
    return RefusalLens(unembedding_of(model), evidence.refusal_ids).transform(evidence)


def _heads(
    model: LVLM, samples: Sequence[Sample], labels: np.ndarray, groups: np.ndarray, batch_size: int, seed: int
) -> dict[str, np.ndarray]:
    """Whether each head's probe is right on the samples that it did not see."""
    acts = capture(model, samples, "z", "last", batch_size=batch_size)
    fold = group_folds(labels, groups, FOLDS, seed)
    right, where = [], []
    for block in acts.blocks("z"):
        rows = acts["z", block][:, 0]  # [n, head, head_dim]
        for head in range(rows.shape[1]):
            scores = out_of_fold(rows[:, head], labels, fold)
            right.append((scores > 0) == (labels == 1))
            where.append(block)
    return {"heads_right": np.stack(right, 1), "head_blocks": np.asarray(where)}


def _push(model: LVLM, samples: Sequence[Sample], blocks: Sequence[int], batch_size: int) -> np.ndarray:
    """The picture's shift along the words' harmful direction, as a share of its length, ``[n, B]``."""
    if not model.takes_images:
        raise DataError("the model reads words only, so no picture can shift anything")
    shown = [row for row, s in enumerate(samples) if len(s.images) == 1 and s.caption]
    if not shown:
        raise DataError("no item has a picture and a caption (Sample.caption)")
    defense = ShiftDC(first_block=0, last_block=-1, batch_size=batch_size).fit(model, samples)
    few = [samples[row] for row in shown]
    safety = defense.safety_.astype(np.float64)
    shares = (defense.corrections(None, model, few) * safety).sum(-1) / np.maximum((safety**2).sum(-1), 1e-12)
    out = np.full((len(samples), len(blocks)), np.nan)
    out[shown] = shares[:, list(blocks)]
    return out


def _mediated(
    model: LVLM, evidence: Evidence, pairs: Sequence[Pair], folder: Path | None, seed: int
) -> dict[str, np.ndarray]:
    """What each block's MLP output at the last token carries of a pair's difference in refusal log-odds, nats."""
    at = {sample.id: row for row, sample in enumerate(evidence.samples)}
    able = [
        pair
        for pair in pairs
        if pair.clean.id in at
        and pair.corrupted.id in at
        and evidence.log_odds[at[pair.clean.id]] > 0 >= evidence.log_odds[at[pair.corrupted.id]]
    ]
    if len(able) < FOLDS:
        raise DataError(
            f"{len(able)} of {len(pairs)} matched pairs have their harmful member refused and their harmless one "
            f"answered; at least {FOLDS} are needed"
        )
    chosen = np.sort(np.random.default_rng(seed).permutation(len(able))[:MOST_PAIRS])
    used = [able[i] for i in chosen]
    place = folder / "patch" if folder is not None else None
    grid = patch_grid(model, used, "mlp_out", "last", direction="noise", null=0, seed=seed, out=place)
    drop = np.full((len(evidence), len(evidence.blocks)), np.nan)
    gap = np.full(len(evidence), np.nan)
    for number, pair in enumerate(used):
        row = at[pair.clean.id]
        gap[row] = grid.clean[number] - grid.corrupted[number]
        drop[row] = grid.clean[number] - grid.values[0, 0, list(evidence.blocks), 0, number]
    return {"drop": drop, "gap": gap}


@torch.inference_mode()
def _first_token(
    model: LVLM, evidence: Evidence, labels: np.ndarray, groups: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Out-of-fold log-odds of a logistic regression on the first token's logits (the lens of the last block)."""
    if evidence.blocks[-1] != evidence.depth - 1:
        raise DataError("the last block was not read, so there are no first-token logits")
    logits = []
    for start in range(0, len(evidence), 64):
        states = torch.from_numpy(evidence.resid[start : start + 64, -1]).to(model.device, model.dtype)
        logits.append(model.anatomy.lens(states).float().cpu().numpy())
    fold = group_folds(labels, groups, FOLDS, seed)
    return {"first_token": out_of_fold(np.concatenate(logits), labels, fold), "fold": fold}
