"""The refusal direction, chosen by its published rule (arXiv 2406.11717, read in the authors' code).

Candidates are the mean differences ``mean(harmful) - mean(harmless)`` of resid_pre at every position after the
instruction and every block.  Each is judged on validation prompts by the first answer token alone, no text is
generated:

* *ablation score*: mean refusal log-odds on harmful prompts while it is taken out everywhere (lower is better);
* *steering score*: mean refusal log-odds on harmless prompts while it is added at its block's input everywhere;
* *KL*: of the harmless prompts' first-token distribution, ablated against untouched.

The chosen one has the lowest ablation score among those with KL at most 0.1, steering score at least 0 and a block
below 0.8 of the depth.  Published sizes: 128 + 128 prompts for the means, 32 + 32 for the scores.

``source_block`` b is published counting: resid_pre of block b, that is the output of block b - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..activations.capture import capture, edited_logits
from ..activations.features import FeatureCache
from ..activations.loop import run_batches
from ..data import Sample
from ..errors import DataError
from ..interventions.edit import Edit, ablate_everywhere, add, at_blocks
from ..lens import LVLM
from ..models.encode import Encoded
from ..models.refusal_tokens import refusal_log_odds, refusal_token_ids
from .directions import random_like

MAX_KL, LEAST_STEERING, DEEPEST = 0.1, 0.0, 0.8


@dataclass(frozen=True)
class RefusalDirection:
    """The choice and all candidates.

    Attributes:
        candidates: rows with position (-1 is the last prompt token), source_block, ablation, steering, kl, passes.
        chosen: the chosen row, or ``None`` where none passes; direction: its ``[d]``, not normalised.
        base_harmful, base_harmless: mean refusal log-odds of the untouched model on the validation prompts.
        effects: drop of refusal log-odds on the harmful validation prompts when the last position's direction is
            ablated, ``[sample, source_block]``; the last column is the output of the last block.
        random: the same for random directions, ``[sample, draw]``.
    """

    candidates: tuple[dict[str, Any], ...]
    chosen: dict[str, Any] | None
    direction: torch.Tensor | None = field(repr=False)
    base_harmful: float
    base_harmless: float
    effects: np.ndarray = field(repr=False)
    random: np.ndarray = field(repr=False)


def after_instruction(model: LVLM, sample: Sample) -> int:
    """How many prompt tokens stand after the user's words (at least 1)."""
    layout = model.encode(sample).layouts[0]
    end = max(layout.question, default=-1)
    return max(1, sum(position > end for position in layout.attended))


def candidate_directions(
    model: LVLM, harmful: Sequence[Sample], harmless: Sequence[Sample], positions: int, batch_size: int = 32
) -> torch.Tensor:
    """Mean differences ``[position, source_block, d]`` float32; position 0 is the last prompt token.

    One source block more than the model has blocks: the last is the output of the last block.
    """
    means = []
    deepest = f"blocks.{model.n_blocks - 1}.hook_resid_post"
    for data in (harmful, harmless):
        where = "last" if positions == 1 else f"all[-{positions}:]"
        found = capture(model, data, ["resid_pre", deepest], where, batch_size=batch_size)
        if not found.valid.all():
            raise DataError(f"a prompt has fewer than {positions} tokens")
        states = np.concatenate([found["resid_pre"], found["resid_post"]], 1)  # [sample, source_block, position, d]
        means.append(states.mean(0, dtype=np.float64))
    difference = torch.from_numpy(means[0] - means[1]).float()
    return difference.transpose(0, 1).flip(0).contiguous()


class _Judge:
    """First-token scores of prompts under edits, pictures encoded once."""

    def __init__(self, model: LVLM, batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size
        self.tokens = refusal_token_ids(model)
        self.features = FeatureCache(model)

    def logits(self, data: Sequence[Sample], edits: Sequence[Edit] = ()) -> torch.Tensor:
        """``[sample, vocab]``."""
        out: torch.Tensor | None = None

        def work(encoded: Encoded) -> torch.Tensor:
            found = edited_logits(self.model, encoded, edits) if edits else self.model.logits(encoded)
            return found.cpu()

        for rows, found in run_batches(self.model, data, work, self.batch_size, features=self.features):
            out = torch.empty(len(data), found.shape[-1]) if out is None else out
            out[rows] = found
        assert out is not None
        return out

    def odds(self, logits: torch.Tensor) -> np.ndarray:
        """``[sample]``."""
        return refusal_log_odds(logits, self.tokens).double().numpy()


def select_refusal_direction(
    model: LVLM,
    train: tuple[Sequence[Sample], Sequence[Sample]],
    validation: tuple[Sequence[Sample], Sequence[Sample]],
    positions: int | None = None,
    random_directions: int = 3,
    batch_size: int = 32,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> RefusalDirection:
    """Form the candidates on ``train``, judge them on ``validation`` (each: harmful, harmless), choose by the rule.

    Args:
        model: the model.
        train, validation: prompts that share no group.
        positions: how many last prompt tokens are tried; default all after the instruction.
        random_directions: ablated for comparison.
        batch_size: rows per forward.
        seed: of the random directions.
        progress: called with (candidates done, in all).

    Raises:
        DataError: an empty part.
    """
    if not all(len(part) for part in (*train, *validation)):
        raise DataError("the refusal direction needs harmful and harmless prompts to train on and to validate")
    positions = after_instruction(model, train[0][0]) if positions is None else positions
    directions = candidate_directions(model, *train, positions, batch_size)
    judge = _Judge(model, batch_size)
    harmful, harmless = validation
    untouched = judge.logits(harmless)
    base, reference = judge.odds(judge.logits(harmful)), untouched.log_softmax(-1)
    effects = np.full((len(harmful), model.n_blocks + 1), np.nan)
    rows: list[dict[str, Any]] = []
    for position in range(positions):
        for block in range(model.n_blocks + 1):
            deep = block >= DEEPEST * model.n_blocks
            if deep and position:
                continue  # only the last position's effect is drawn at every block
            direction = directions[position, block]
            if float(direction.norm()) <= 1e-6 * float(directions.norm(dim=-1).max()):
                effects[:, block] = 0.0 if position == 0 else effects[:, block]  # the same token in every prompt
                continue
            ablation = ablate_everywhere(model, direction)
            odds = judge.odds(judge.logits(harmful, ablation))
            if position == 0:
                effects[:, block] = base - odds
            if deep:
                continue
            changed = judge.logits(harmless, ablation).log_softmax(-1)
            kl = float((reference.exp() * (reference - changed)).sum(-1).mean())
            steered = judge.odds(judge.logits(harmless, at_blocks("resid_pre", [block], add(direction))))
            row = {
                "position": -1 - position, "source_block": block, "ablation": float(odds.mean()),
                "steering": float(steered.mean()), "kl": kl,
            }  # fmt: skip
            rows.append(row | {"passes": kl <= MAX_KL and row["steering"] >= LEAST_STEERING})
            if progress is not None:
                progress(len(rows), positions * int(np.ceil(DEEPEST * model.n_blocks)))
    drawn = random_like(directions[0, -1], random_directions, seed)
    random = [base - judge.odds(judge.logits(harmful, ablate_everywhere(model, one))) for one in drawn]
    passing = [row for row in rows if row["passes"]]
    chosen = min(passing, key=lambda row: row["ablation"]) if passing else None
    picked = None if chosen is None else directions[-1 - chosen["position"], chosen["source_block"]]
    return RefusalDirection(
        tuple(rows), chosen, picked, float(base.mean()), float(judge.odds(untouched).mean()), effects,
        np.stack(random, 1) if random else np.empty((len(harmful), 0)),
    )  # fmt: skip
