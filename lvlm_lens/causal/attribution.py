"""Attribution patching: an estimate of every cell of a patch grid from a few forward and backward passes.

``gradient``     ``(a_donor - a) . dm/da`` at the recipient's activations (Nanda 2023; arXiv 2310.10348)
``integrated``   the gradient averaged over input embeddings between recipient and donor (EAP-IG, arXiv 2403.17806)
``atp_star``     AtP* (arXiv 2403.00745, abstract and third-party descriptions; the formulas below are our reading):
                 GradDrop, the mean over blocks of |attribution| with that block's writes detached, so that direct
                 and indirect effects that cancel do not hide a node; and for q and k the change that attention's
                 softmax makes of a patch is computed exactly, and only what follows it is linearised (QK fix)

A guess is a prefilter: :func:`attribution_patch` patches its top nodes, and as many random ones, for real, and
reports the rank correlation of guess and truth over the random ones and over all that were patched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from ..activations.capture import eager_blocks
from ..activations.hooks import HookFunction, attached
from ..activations.sites import Site, Tap, tap
from ..data import Pair
from ..errors import DataError, SiteError, UsageError
from ..interventions.cell import full
from ..interventions.engine import resume
from ..interventions.reach import obstacle
from ..interventions.recording import last_logits, record
from ..lens import LVLM
from ..models.encode import Encoded
from .cells import Group, SiteAxis, build_cell, position_groups
from .metrics import LogitsFunction, Metric, make_metric, numbers

if TYPE_CHECKING:
    import pandas as pd

Method = Literal["gradient", "integrated", "atp_star"]
_Hook = tuple[Site, Tap, HookFunction]


@dataclass
class Attribution:
    """Estimates and their check.

    Attributes:
        scores: guessed change of the metric, ``[block, position, pair]``; NaN where a prompt has no such
            position.  AtP* gives sizes without signs.
        site, positions, method, metric: what was guessed.
        verified: one row a node that was patched for real: block, position, ``guess`` and ``effect`` (means over
            pairs), and ``chosen`` (top or random).
        rank_correlation: Spearman's, of |guess| and |effect|, over the random nodes; NaN with fewer than three.
        rank_correlation_all: the same over every patched node (the top ones were selected: read it with care).
    """

    scores: np.ndarray = field(repr=False)
    site: str
    positions: tuple[str, ...]
    method: str
    metric: str
    verified: pd.DataFrame = field(repr=False)
    rank_correlation: float
    rank_correlation_all: float


def attribution_patch(
    model: LVLM,
    pairs: Sequence[Pair],
    site: str = "resid_post",
    positions: str | Sequence[str] = "all",
    metric: str | LogitsFunction | Metric = "refusal_log_odds",
    method: Method = "gradient",
    per: str = "position",
    steps: int = 8,
    top: int = 16,
    seed: int = 0,
) -> Attribution:
    """Guess the effect of denoising (clean into corrupted) at every block and position, then patch the top nodes.

    Args:
        model: the model; weights stay as they are.
        pairs: matched pairs of equal length, run as one batch.
        site: resid_pre, resid_mid, resid_post, attn_out, mlp_out, q, k, v or z.
        positions, per: as in :func:`~lvlm_lens.causal.patch_grid`.
        metric: see there; must be differentiable.
        method: see the module's docstring.
        steps: points between the embeddings, for ``integrated``.
        top: nodes with the largest mean |guess| that are patched, and as many random ones.
        seed: of the random nodes.
    """
    if method not in ("gradient", "integrated", "atp_star"):
        raise UsageError(f"method={method!r}; write gradient, integrated or atp_star")
    if site == "pattern":
        raise SiteError("patterns are not attributed; use q and k")
    clean, corrupted = model.encode([p.clean for p in pairs]), model.encode([p.corrupted for p in pairs])
    if [x.attended for x in clean.layouts] != [x.attended for x in corrupted.layouts]:
        raise DataError("attribution needs pairs of equal length; patch_grid takes others")
    groups = position_groups(positions, per, corrupted.layouts)
    sites = [Site(site, block) for block in range(model.n_blocks)]
    measure = make_metric(metric, model)
    every = [list(range(corrupted.length))] * len(corrupted)
    names = [*sites, Site("resid_pre", 0)]
    donor = record(model, clean, names, every, low=None)
    recipient = record(model, corrupted, names, every, low=0)
    measure.prepare(donor.logits, recipient.logits)  # type: ignore[arg-type]

    difference = {s: donor.kept[s] - recipient.kept[s] for s in sites}  # [R, T, ...]
    if method == "atp_star":
        per_token = _atp_star(model, corrupted, sites, difference, measure)
    elif method == "integrated":
        low, high = recipient.kept[Site("resid_pre", 0)], donor.kept[Site("resid_pre", 0)]
        gradients: dict[Site, torch.Tensor] = {}
        for step in range(steps):
            embedding = low + (step + 0.5) / steps * (high - low)
            for s, part in _gradients(model, corrupted, sites, measure, embedding)[0].items():
                gradients[s] = gradients.get(s, 0) + part / steps
        per_token = torch.stack([_dot(difference[s], gradients[s]) for s in sites])
    else:
        found = _gradients(model, corrupted, sites, measure)[0]
        per_token = torch.stack([_dot(difference[s], found[s]) for s in sites])  # [block, R, T]

    scores = np.full((model.n_blocks, len(groups), len(corrupted)), np.nan)
    for g, group in enumerate(groups):
        for row, layout in enumerate(corrupted.layouts):
            columns = list(group.columns(layout))
            if columns:
                scores[:, g, row] = per_token[:, row, columns].sum(-1).double().cpu().numpy()
    verified, random_rank, all_rank = _verify(
        model, corrupted, scores, groups, site, donor, recipient, measure, top, seed
    )
    return Attribution(
        scores, site, tuple(g.name for g in groups), method, measure.name, verified, random_rank, all_rank
    )


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``[R, T]``: inner product over everything behind the token axis."""
    return (a.float() * b.float()).flatten(2).sum(-1)


def _gradients(
    model: LVLM,
    encoded: Encoded,
    sites: Sequence[Site],
    metric: Metric,
    embedding: torch.Tensor | None = None,
    detached: int | None = None,
) -> tuple[dict[Site, torch.Tensor], dict[Site, torch.Tensor]]:
    """Gradients of the metric at sites, ``[R, T, ...]``, and the sites' values, in one forward and backward.

    ``embedding`` replaces what block 0 reads; ``detached`` is a block whose writes pass no gradient (GradDrop).
    """
    kept: dict[Site, torch.Tensor] = {}

    def start(value: torch.Tensor, site: Site) -> torch.Tensor:
        # cloned out of inference mode, so that autograd may start here
        source = value if embedding is None else embedding.to(value)
        return source.detach().clone().requires_grad_()

    def keep(value: torch.Tensor, site: Site) -> torch.Tensor | None:
        kept[site] = value
        # put back what was kept: per-head values are views, and the gradient must pass through the view itself
        return None if site.name == "pattern" else value

    def stop(value: torch.Tensor, site: Site) -> torch.Tensor:
        return value.detach()

    hooks: list[_Hook] = [(Site("resid_pre", 0), tap(Site("resid_pre", 0), model.anatomy), start)]
    hooks += [(site, tap(site, model.anatomy), keep) for site in sites]
    if detached is not None:
        own = [Site(name, detached) for name in ("attn_out", "mlp_out")]
        hooks += [(site, tap(site, model.anatomy), stop) for site in own]
    patterns = [site.block for site in sites if site.name == "pattern" and site.block is not None]
    with torch.enable_grad(), eager_blocks(model, patterns), attached(hooks):
        logits = last_logits(model, encoded)
        total = metric(logits, list(range(len(encoded)))).sum()
        wanted = list(kept)
        found = torch.autograd.grad(total, [kept[site] for site in wanted], allow_unused=True)
    gradients = {
        site: torch.zeros_like(kept[site]) if g is None else g.detach() for site, g in zip(wanted, found, strict=True)
    }
    return gradients, {site: value.detach() for site, value in kept.items()}


def _atp_star(
    model: LVLM, encoded: Encoded, sites: Sequence[Site], difference: dict[Site, torch.Tensor], metric: Metric
) -> torch.Tensor:
    """AtP* sizes ``[block, R, T]``: GradDrop over blocks, with the QK fix for q and k."""
    through_softmax = sites[0].name in "qk"
    reads = [Site("pattern", s.block) for s in sites] if through_softmax else list(sites)
    moved = _pattern_changes(model, encoded, sites, difference) if through_softmax else None
    total = torch.zeros(len(sites), *next(iter(difference.values())).shape[:2], device=model.device)
    for dropped in range(model.n_blocks):
        gradients, _ = _gradients(model, encoded, reads, metric, detached=dropped)
        for block, (site, read) in enumerate(zip(sites, reads, strict=True)):
            if moved is None:
                total[block] += _dot(difference[site], gradients[read]).abs()
            else:
                total[block] += moved[block](gradients[read]).abs()
    # a node's own block passes nothing when it is the one that is dropped, hence one term less
    return total / max(1, model.n_blocks - 1)


def _pattern_changes(
    model: LVLM, encoded: Encoded, sites: Sequence[Site], difference: dict[Site, torch.Tensor]
) -> list[Any]:
    """For each block, a function from the gradient at the pattern ``[R, H, T, T]`` to attributions ``[R, T]``.

    Queries: a row of the pattern depends on its own query only, so one forward with all queries of the block replaced
    gives the patched row of every query node.  Keys: replacing one key moves one score in each row.  The shift of
    the scores is read from two forwards with all keys but the first, and only the first, replaced (an unmoved key
    fixes the softmax's free constant), and the softmax is then worked out for one moved score.
    """
    blocks = [site.block for site in sites if site.block is not None]
    read = [Site("pattern", block) for block in blocks]
    plain = _patterns(model, encoded, read, [])
    first = torch.tensor([layout.attended[0] for layout in encoded.layouts], device=model.device)
    functions: list[Any] = []
    for site, seen in zip(sites, read, strict=True):
        before = plain[seen].float()  # [R, H, T, T]
        if site.name == "q":
            after = _patterns(model, encoded, [seen], [(site, _shift(difference[site]))])[seen].float()
            functions.append(lambda g, change=after - before: (g.float() * change).sum((1, 3)))
            continue
        positions = torch.arange(encoded.length, device=model.device)
        reference = (positions[None] == first[:, None])[..., None, None]  # [R, T, 1, 1]
        shift = difference[site]
        others = _patterns(model, encoded, [seen], [(site, _shift(shift.masked_fill(reference, 0)))])[seen].float()
        only = _patterns(model, encoded, [seen], [(site, _shift(shift.masked_fill(~reference, 0)))])[seen].float()
        functions.append(_key_function(before, others, only, first))
    return functions


def _key_function(before: torch.Tensor, others: torch.Tensor, only: torch.Tensor, first: torch.Tensor) -> Any:
    """Attributions ``[R, T]`` of key nodes from patterns ``[R, H, T, T]``; see :func:`_pattern_changes`."""
    rows, length = before.shape[0], before.shape[-1]
    at = first[:, None, None, None].expand(*before.shape[:3], 1)
    tiny = torch.finfo(torch.float32).tiny

    def log_ratio(after: torch.Tensor) -> torch.Tensor:
        return after.clamp_min(tiny).log() - before.clamp_min(tiny).log()

    moved = log_ratio(others) - log_ratio(others).gather(-1, at)  # score shift of every key but the first
    # the first key's own shift, against the rest, which did not move in that forward
    rest_before, rest_after = 1 - before.gather(-1, at), 1 - only.gather(-1, at)
    own = log_ratio(only).gather(-1, at) - (rest_after.clamp_min(tiny).log() - rest_before.clamp_min(tiny).log())
    moved = moved.scatter(-1, at, own)
    moved = torch.where(before > 0, moved, torch.zeros_like(moved))
    gain = before * (moved.clamp(-60, 60).exp() - 1)
    weight = gain / (1 + gain)  # [R, H, query, key]: how far the row moves toward that key

    def attribute(gradient: torch.Tensor) -> torch.Tensor:
        g = gradient.float()
        mean = (g * before).sum(-1, keepdim=True)
        return (weight * (g - mean)).sum((1, 2)).reshape(rows, length)

    return attribute


def _shift(difference: torch.Tensor) -> HookFunction:
    return lambda value, site: value + difference.to(value)


@torch.no_grad()
def _patterns(
    model: LVLM, encoded: Encoded, sites: Sequence[Site], edits: Sequence[tuple[Site, HookFunction]]
) -> dict[Site, torch.Tensor]:
    """Attention patterns ``[R, H, T, T]`` of some blocks, with edits in place."""
    kept: dict[Site, torch.Tensor] = {}

    def keep(value: torch.Tensor, site: Site) -> None:
        kept[site] = value.detach().clone()

    hooks: list[_Hook] = [(site, tap(site, model.anatomy), function) for site, function in edits]
    hooks += [(site, tap(site, model.anatomy), keep) for site in sites]
    with eager_blocks(model, [s.block for s in sites if s.block is not None]), attached(hooks):
        last_logits(model, encoded)
    return kept


def _verify(
    model: LVLM,
    encoded: Encoded,
    scores: np.ndarray,
    groups: Sequence[Group],
    site: str,
    donor: Any,
    recipient: Any,
    metric: Metric,
    top: int,
    seed: int,
) -> tuple[pd.DataFrame, float, float]:
    """Patch the top nodes and as many random ones; a table, and Spearman's correlation over random and over all."""
    import pandas as pd
    from scipy.stats import spearmanr

    guess = np.nanmean(scores, axis=-1)  # [block, position]
    size = np.where(np.isfinite(guess), np.abs(guess), -1.0).reshape(-1)
    order = [int(i) for i in np.argsort(-size, kind="stable") if size[i] >= 0]
    drawn = np.random.default_rng(seed).permutation(order)[:top].tolist()
    nodes = [(i, "top") for i in order[:top]] + [(i, "random") for i in drawn]
    baseline = numbers(metric, recipient.logits, list(range(len(encoded))))
    cells, owner = [], []
    for number, (node, _) in enumerate(nodes):
        block, g = divmod(node, len(groups))
        for row, layout in enumerate(encoded.layouts):
            columns = groups[g].columns(layout)
            if columns:
                cells.append(build_cell(SiteAxis(site), [block], row, columns, donor, columns))
                owner.append((number, row))
    effects: list[list[float]] = [[] for _ in nodes]
    if obstacle(model, recipient) is None:
        runs = resume(model, recipient, cells)
    else:
        runs = iter([(list(range(len(cells))), full(model, encoded, cells))])
    for some, logits in runs:
        for n, value in zip(some, numbers(metric, logits, [owner[n][1] for n in some]), strict=True):
            effects[owner[n][0]].append(float(value - baseline[owner[n][1]]))
    table = pd.DataFrame(
        {
            "block": [node // len(groups) for node, _ in nodes],
            "position": [groups[node % len(groups)].name for node, _ in nodes],
            "guess": [guess.reshape(-1)[node] for node, _ in nodes],
            "effect": [float(np.mean(own)) for own in effects],
            "chosen": [kind for _, kind in nodes],
        }
    )

    def rank(part: pd.DataFrame) -> float:
        return float(spearmanr(part["guess"].abs(), part["effect"].abs()).statistic) if len(part) >= 3 else float("nan")

    return table, rank(table[table["chosen"] == "random"]), rank(table)
