"""Sharpening a range of safety layers by scaling it (Safety Layers, arXiv 2408.17003, read in the authors' code).

Weights of q, k, v, o, up, gate and down in blocks [i, j) are multiplied by a factor a little above 1.  Where the range
is the one that recognises danger, the model then refuses more on harmless prompts that look dangerous: so the number
of refusals, as a function of the range, tells where it is.  Starting from the range of the angular gap, i is kept and j
moved to the maximum, then j is kept and i moved.

Refusal is counted on the first answer token (refusal log-odds above 0) and not in generated text; beside the count
stands the mean of the log-odds, which is less coarse.  [own]  The scaling is done by hooks: a linear layer's output
less its bias is multiplied, which is the layer with its weight multiplied; nothing is written into the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from ..activations.features import FeatureCache
from ..activations.loop import run_batches
from ..data import Sample
from ..errors import ModelError, UsageError
from ..lens import LVLM
from ..models.encode import Encoded
from ..models.families import submodule
from ..models.refusal_tokens import refusal_log_odds, refusal_token_ids


def _linears(model: LVLM, block: int) -> list[nn.Linear]:
    family, module = model.anatomy.family, model.anatomy.blocks[block]
    parts = [submodule(module, family.attn), submodule(module, family.mlp)]
    found = [layer for part in parts if part is not None for layer in part.modules() if isinstance(layer, nn.Linear)]
    if not found:
        raise ModelError(f"block {block} of family {family.model_type!r} has no linear layer to scale")
    return found


@contextmanager
def scaled_blocks(model: LVLM, blocks: Sequence[int], factor: float) -> Iterator[None]:
    """Inside, every linear layer of attention and MLP in ``blocks`` acts as if its weight were multiplied."""

    def grow(module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
        bias: Any = module.bias
        return output * factor if bias is None else (output - bias) * factor + bias

    handles = []
    try:
        for block in blocks:
            handles += [layer.register_forward_hook(grow) for layer in _linears(model, block)]
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Sharpened:
    """A range of blocks after sharpening.

    Attributes:
        start, stop: the range [start, stop), block numbers; first: the range it began from.
        refusals: how many prompts are refused with the range scaled; base: with nothing scaled; n: prompts.
        tried: one row a range: start, stop, refusals, log_odds (mean).
        moved: refusal log-odds gained with blocks from the first start to j scaled, ``[sample, j]``; NaN before it.
    """

    start: int
    stop: int
    first: tuple[int, int]
    refusals: int
    base: int
    n: int
    tried: tuple[dict[str, float], ...]
    moved: np.ndarray = field(repr=False)


def sharpen_range(
    model: LVLM,
    prompts: Sequence[Sample],
    first: tuple[int, int],
    factor: float = 1.15,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Sharpened:
    """Move the ends of a range to the most refusals on harmless prompts; ties go to the larger mean log-odds.

    Args:
        model: the model.
        prompts: harmless prompts, best those that look harmful (XSTest's safe ones).
        first: [start, stop) to begin from, e.g. the angular gap's range.
        factor: of the weights; the paper takes about 1.1 to 1.2.
        batch_size: rows per forward.
        progress: called with (ranges done, ranges in all).
    """
    depth = model.n_blocks
    if not 0 <= first[0] < first[1] <= depth:
        raise UsageError(f"range {first} is none of blocks 0 to {depth - 1}: [start, stop) with start < stop")
    if not factor > 0:
        raise UsageError(f"factor {factor}; it must be above 0")
    tokens = refusal_token_ids(model)
    features = FeatureCache(model)
    known: dict[tuple[int, int], np.ndarray] = {}
    total = 2 * depth

    def odds(start: int, stop: int) -> np.ndarray:
        if (start, stop) not in known:

            def work(encoded: Encoded) -> np.ndarray:
                with scaled_blocks(model, range(start, stop), factor):
                    return refusal_log_odds(model.logits(encoded), tokens).cpu().numpy()

            values = np.empty(len(prompts))
            for rows, found in run_batches(model, prompts, work, batch_size, features=features):
                values[rows] = found
            known[start, stop] = values
            if progress is not None:
                progress(min(len(known), total), total)
        return known[start, stop]

    def best(ranges: Sequence[tuple[int, int]]) -> tuple[int, int]:
        return max(ranges, key=lambda r: (int((odds(*r) > 0).sum()), float(odds(*r).mean())))

    base = odds(first[0], first[0])  # an empty range scales nothing
    start, stop = best([(first[0], j) for j in range(first[0] + 1, depth + 1)])
    moved = np.full((len(prompts), depth), np.nan)
    for j in range(first[0], depth):
        moved[:, j] = odds(first[0], j + 1) - base
    start, stop = best([(i, stop) for i in range(stop)])
    tried = tuple(
        {"start": a, "stop": b, "refusals": int((v > 0).sum()), "log_odds": float(v.mean())}
        for (a, b), v in sorted(known.items())
    )
    here = int((known[start, stop] > 0).sum())
    return Sharpened(start, stop, first, here, int((base > 0).sum()), len(prompts), tried, moved)
