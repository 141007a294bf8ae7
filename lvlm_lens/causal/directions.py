"""Does a direction carry a behaviour?  Take it out, add it, or take it out of the weights.

Directional ablation ``x - (x.r^) r^`` at block inputs and at what attention and MLP write, all positions; addition
``x + strength * r`` at the input of one block; and the weight form, which no longer needs hooks: arXiv 2406.11717.
Random directions of the same norm are run beside it: ablating any direction changes something.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from ..activations.loop import run_batches
from ..data import Sample
from ..errors import UsageError
from ..interventions.edit import Edit, ablate_everywhere, ablated_weights, add, at_blocks
from ..lens import LVLM
from ..models.encode import Encoded
from .effects import Effects, MakeEdits, measure_edits
from .metrics import LogitsFunction, Metric, make_metric, numbers


def _constant(edits: list[Edit], encoded: Encoded) -> list[Edit]:
    return edits


def random_like(direction: torch.Tensor, count: int, seed: int = 0) -> list[torch.Tensor]:
    """``count`` directions with the norm of ``direction`` ``[d]``, uniform on the sphere."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, direction.shape[-1], generator=generator)
    return list(drawn / drawn.norm(dim=-1, keepdim=True) * direction.float().norm().cpu())


def direction_effects(
    model: LVLM,
    data: Sequence[Sample],
    direction: torch.Tensor,
    block: int,
    strengths: Sequence[float] = (1.0,),
    random_directions: int = 3,
    metric: str | LogitsFunction | Metric = "refusal_log_odds",
    batch_size: int = 32,
    seed: int = 0,
) -> Effects:
    """Ablation everywhere and addition at a block's input, for a direction ``[d]`` and for random ones.

    Conditions: ``ablate``, ``add 1`` (one a strength), then ``ablate random 0``, ``add random 0`` and so on, the
    random ones added at the first strength.
    """
    if direction.shape != (model.anatomy.d_model,):
        raise UsageError(f"the direction has shape {tuple(direction.shape)}; expected [{model.anatomy.d_model}]")
    where = [model.anatomy.block_index(block)]
    conditions: list[tuple[str, MakeEdits]] = [("ablate", partial(_constant, ablate_everywhere(model, direction)))]
    for strength in strengths:
        edits = at_blocks("resid_pre", where, add(direction, strength=strength))
        conditions.append((f"add {strength:g}", partial(_constant, edits)))
    for number, random in enumerate(random_like(direction, random_directions, seed)):
        conditions.append((f"ablate random {number}", partial(_constant, ablate_everywhere(model, random))))
        edits = at_blocks("resid_pre", where, add(random, strength=strengths[0]))
        conditions.append((f"add random {number}", partial(_constant, edits)))
    return measure_edits(model, data, conditions, metric, batch_size)


def weight_ablation_effect(
    model: LVLM,
    data: Sequence[Sample],
    direction: torch.Tensor,
    metric: str | LogitsFunction | Metric = "refusal_log_odds",
    batch_size: int = 32,
) -> Effects:
    """The direction taken out of every matrix that writes the residual; weights are restored afterwards.

    Raises :class:`~lvlm_lens.errors.ModelError` where weights cannot take it out (tied embedding, post-norms).
    """
    measure = make_metric(metric, model)
    kept: dict[int, torch.Tensor] = {}
    values = np.full((2, len(data)), np.nan)

    def logits(encoded: Encoded) -> torch.Tensor:
        return model.logits(encoded).cpu()

    for rows, found in run_batches(model, data, logits, batch_size):
        kept.update(zip(rows, found, strict=True))
    with ablated_weights(model, direction):
        for rows, found in run_batches(model, data, logits, batch_size):
            base = torch.stack([kept[row] for row in rows])
            measure.prepare(base, base)
            within = list(range(len(rows)))
            values[0, rows], values[1, rows] = numbers(measure, base, within), numbers(measure, found, within)
    ids, groups = tuple(s.id for s in data), tuple(s.group or s.id for s in data)
    return Effects(("ablate weights",), values[0], values[1:], ids, groups, measure.name)
