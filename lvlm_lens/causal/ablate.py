"""Take a part away and see what is missed: mean, resample and zero ablation, single heads, skipped blocks, noise.

Zero is far from anything a model has seen; a mean over the data, or another sample's value, is not (arXiv
2309.16042).  Means are accumulated in float64.  Gaussian noise on image embeddings, three standard deviations wide,
is the corruption of causal tracing (arXiv 2202.05262); matched counterfactuals are preferable where there are any.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch

from ..activations.capture import capture, gather_positions
from ..activations.hooks import HookFunction
from ..activations.sites import Site, expand_sites
from ..data import Sample
from ..errors import UsageError
from ..interventions.edit import Edit, changed, mean_ablate, resample, scale
from ..lens import LVLM
from ..models.encode import Encoded
from ..models.positions import Positions
from .effects import Effects, MakeEdits, measure_edits
from .metrics import LogitsFunction, Metric

Kind = Literal["mean", "resample", "zero"]


def means(model: LVLM, data: Sequence[Sample], sites: Sequence[Site], positions: str = "all") -> dict[Site, np.ndarray]:
    """Mean of each site over samples and positions, float64 accumulation, float32 ``[d]`` or ``[head, head_dim]``."""
    kept = capture(model, data, sites, positions)
    valid = kept.valid
    out = {}
    for site in sites:
        array = kept[site][valid]  # [sample * position, ...]
        out[site] = array.mean(0, dtype=np.float64).astype(np.float32)
    return out


def _at(positions: str | None, encoded: Encoded) -> torch.Tensor | None:
    return None if positions is None else gather_positions(encoded, Positions.parse(positions))[0]


def ablation_effects(
    model: LVLM,
    data: Sequence[Sample],
    site: str,
    kind: Kind = "mean",
    positions: str | None = None,
    heads: Literal["all", "each"] = "all",
    reference: Sequence[Sample] | None = None,
    metric: str | LogitsFunction | Metric = "refusal_log_odds",
    batch_size: int = 32,
) -> Effects:
    """Ablate a site in each block, one condition a block (and head): ``blocks.3.attn.hook_z`` or ``... head 2``.

    Args:
        model: the model.
        data: samples.
        site: a block site; with ``heads="each"`` one of z, q, k, v.  Head ablation acts on the input of o_proj.
        kind: ``mean`` of ``reference``, ``resample`` (the next row of the batch), or ``zero``.
        positions: where; all of them by default.
        heads: all heads together, or one condition a head.
        reference: samples that the mean is taken over; ``data`` by default.
        metric: ``kl`` gives the head score of Ships (arXiv 2410.13708), KL(P_base || P_ablated).
        batch_size: samples per forward; ``resample`` needs at least 2.
    """
    if kind not in ("mean", "resample", "zero"):
        raise UsageError(f"kind={kind!r}; write mean, resample or zero")
    if kind == "resample" and min(batch_size, len(data)) < 2:
        raise UsageError("resample ablation needs at least two samples in a batch")
    sites = expand_sites(site, model.anatomy)
    mean = means(model, reference or data, sites) if kind == "mean" else {}
    conditions: list[tuple[str, MakeEdits]] = []
    for place in sites:
        count = (model.anatomy.n_heads if place.name in "zq" else model.anatomy.n_kv_heads) if heads == "each" else 1
        for head in range(count):
            only = [head] if heads == "each" else None
            name = f"{place} head {head}" if heads == "each" else str(place)
            conditions.append((name, partial(_ablate, place, kind, positions, only, mean.get(place))))
    return measure_edits(model, data, conditions, metric, batch_size)


def _ablate(
    site: Site, kind: Kind, positions: str | None, heads: list[int] | None, mean: np.ndarray | None, encoded: Encoded
) -> list[Edit]:
    index = _at(positions, encoded)
    if mean is not None:
        chosen = torch.from_numpy(mean if heads is None else mean[heads])
        return [(site, mean_ablate(chosen, index, heads))]
    if kind == "zero":
        return [(site, scale(0.0, index, heads))]
    order = [*range(1, len(encoded)), 0]
    return [(site, resample(order, index, heads))]


def block_skipping(
    model: LVLM,
    data: Sequence[Sample],
    width: int = 1,
    metric: str | LogitsFunction | Metric = "refusal_log_odds",
    batch_size: int = 32,
) -> Effects:
    """Leave out ``width`` blocks, from each block on: input becomes output.  Conditions ``skip 3`` or ``skip 3-5``."""
    if width < 1 or width > model.n_blocks:
        raise UsageError(f"width={width}; it must be 1 to {model.n_blocks}")
    conditions: list[tuple[str, MakeEdits]] = []
    for first in range(model.n_blocks - width + 1):
        blocks = range(first, first + width)
        name = f"skip {first}" if width == 1 else f"skip {first}-{blocks[-1]}"
        conditions.append((name, partial(_skip, blocks)))
    return measure_edits(model, data, conditions, metric, batch_size)


def _skip(blocks: range, encoded: Encoded) -> list[Edit]:
    edits: list[Edit] = []
    for block in blocks:
        came_in: list[torch.Tensor] = []

        def read(value: torch.Tensor, site: Site, kept: list[torch.Tensor] = came_in) -> None:
            kept[:] = [value]

        def write(value: torch.Tensor, site: Site, kept: list[torch.Tensor] = came_in) -> torch.Tensor:
            return kept[0].to(value.device)

        edits += [(Site("resid_pre", block), read), (Site("resid_post", block), write)]
    return edits


def image_noise(
    model: LVLM,
    data: Sequence[Sample],
    sigmas: Sequence[float] = (1.0, 3.0),
    draws: int = 1,
    metric: str | LogitsFunction | Metric = "refusal_log_odds",
    batch_size: int = 32,
    seed: int = 0,
) -> Effects:
    """Gaussian noise on the image embeddings, ``sigma`` times their own standard deviation in the batch."""
    conditions: list[tuple[str, MakeEdits]] = [
        (f"noise {sigma:g} sigma, draw {draw}", partial(_noise, sigma, seed + draw))
        for sigma in sigmas
        for draw in range(draws)
    ]
    return measure_edits(model, data, conditions, metric, batch_size)


def _noise(sigma: float, seed: int, encoded: Encoded) -> list[Edit]:
    index = _at("image", encoded)

    def change(value: torch.Tensor) -> torch.Tensor:  # [batch, P, d]
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(value.shape, generator=generator).to(value.device, torch.float32)
        return value.float() + sigma * value.float().std() * noise

    function: HookFunction = changed(change, index)
    return [(Site("resid_pre", 0), function)]
