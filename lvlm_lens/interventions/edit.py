"""Writing activations: functions to put at sites, blocked attention, and directions taken out of weights.

Every edit is a pair ``(site, function)`` for ``capture(..., edits=...)``, ``edited_logits`` or
``run_with_hooks``.  Functions take ``(value, site)`` with ``value`` ``[batch, position, ...]`` (per
head: ``[batch, position, head, head_dim]``) and return the whole new value.  ``index`` is int64
``[batch, P]`` from :func:`~lvlm_lens.activations.capture.gather_positions` and restricts the edit to
those positions; without it every position is edited, padding included, which is harmless.

Directional ablation ``x - (x.r^) r^`` and addition follow the refusal-direction paper
(arXiv 2406.11717); attention knockout follows arXiv 2304.14767, for image and question tokens
arXiv 2411.18620.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ..activations.hooks import HookFunction
from ..activations.sites import Site
from ..errors import ModelError, SiteError, UsageError
from ..models.encode import Encoded
from ..models.families import submodule
from ..models.loaded import LoadedModel
from ..models.positions import Positions

Edit = tuple[Site, HookFunction]
_Change = Callable[[torch.Tensor], torch.Tensor]


def _wide(index: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """``index`` [batch, P] broadcast over the trailing axes of ``value``, on its device."""
    index = index.to(value.device)
    return index.reshape(*index.shape, *([1] * (value.ndim - 2))).expand(-1, -1, *value.shape[2:])


def _first_of_repeats(index: torch.Tensor) -> torch.Tensor:
    """For each column, the first column with the same position: short rows repeat their last index."""
    columns = torch.arange(index.shape[1], device=index.device).expand_as(index)
    fresh = torch.ones_like(index, dtype=torch.bool)
    fresh[:, 1:] = index[:, 1:] != index[:, :-1]
    return torch.where(fresh, columns, torch.zeros_like(columns)).cummax(dim=1).values


def changed(change: _Change, index: torch.Tensor | None = None, heads: Sequence[int] | None = None) -> HookFunction:
    """The edit that applies ``change`` to the values at ``index`` and, at per-head sites, to some heads only."""

    def edit(value: torch.Tensor, site: Site) -> torch.Tensor:
        if heads is not None and value.ndim != 4:
            raise SiteError(f"{site} has no heads to choose from; use q, k, v or z")
        chosen = value if index is None else value.gather(1, _wide(index, value))  # [batch, P, ...]
        if heads is None:
            new = change(chosen).to(value.dtype).expand_as(chosen)
        else:
            new = chosen.clone()
            new[:, :, list(heads)] = change(chosen[:, :, list(heads)]).to(value.dtype)
        if index is None:
            return new
        new = new.gather(1, _wide(_first_of_repeats(index), new))
        return value.scatter(1, _wide(index, value), new)

    return edit


def _unit_rows(direction: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis float32 ``[k, d]`` of one direction ``[d]`` or several ``[k, d]``."""
    rows = torch.as_tensor(direction, dtype=torch.float32)
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or bool((rows.norm(dim=-1) == 0).any()) or not bool(rows.isfinite().all()):
        raise UsageError(f"directions must be finite, not zero, and of shape [d] or [k, d]; got {tuple(rows.shape)}")
    return torch.linalg.qr(rows.T).Q.T


def replace(new: torch.Tensor, index: torch.Tensor | None = None, heads: Sequence[int] | None = None) -> HookFunction:
    """Put ``new`` there: ``[batch, P, ...]``, or anything that broadcasts to it (a mean, zero)."""
    return changed(lambda value: new.to(value.device, value.dtype).expand_as(value), index, heads)


def add(
    vector: torch.Tensor, index: torch.Tensor | None = None, strength: float = 1.0, heads: Sequence[int] | None = None
) -> HookFunction:
    """Add ``strength * vector``; ``vector`` is ``[d]`` or broadcasts to ``[batch, P, d]``."""
    return changed(lambda value: value + strength * vector.to(value.device, value.dtype), index, heads)


def scale(factor: float, index: torch.Tensor | None = None, heads: Sequence[int] | None = None) -> HookFunction:
    """Multiply by ``factor``; 0 is zero ablation."""
    return changed(lambda value: value * factor, index, heads)


def project_out(direction: torch.Tensor, index: torch.Tensor | None = None) -> HookFunction:
    """Take out the part along a direction ``[d]`` or the span of several ``[k, d]``: ``x - Q'Qx``."""
    basis = _unit_rows(direction)

    def change(value: torch.Tensor) -> torch.Tensor:
        rows = basis.to(value.device)
        wide = value.float()
        return wide - (wide @ rows.T) @ rows

    return changed(change, index)


def resample(
    order: Sequence[int], index: torch.Tensor | None = None, heads: Sequence[int] | None = None
) -> HookFunction:
    """Give each row of the batch the values of row ``order[row]``: resample ablation within the batch."""
    return changed(lambda value: value[torch.as_tensor(list(order), device=value.device)], index, heads)


def mean_ablate(
    mean: torch.Tensor, index: torch.Tensor | None = None, heads: Sequence[int] | None = None
) -> HookFunction:
    """Put a mean ``[d]`` (per head ``[head, head_dim]``) there."""
    return replace(mean, index, heads)


def at_blocks(name: str, blocks: Iterable[int], function: HookFunction) -> list[Edit]:
    """The same function at one site of several blocks."""
    return [(Site(name, block), function) for block in blocks]


def window(centre: int, width: int, n_blocks: int) -> range:
    """``width`` blocks around ``centre``, cut at the ends of the model."""
    if width < 1:
        raise UsageError(f"a window of {width} blocks is empty")
    first = centre - (width - 1) // 2
    return range(max(0, first), min(n_blocks, first + width))


def ablate_everywhere(model: LoadedModel, direction: torch.Tensor) -> list[Edit]:
    """Take a direction out of every block's input and of everything that attention and MLP write.

    The activation form of directional ablation (arXiv 2406.11717), at all positions.
    """
    function = project_out(direction)
    names = ("resid_pre", "attn_out", "mlp_out")
    return [edit for name in names for edit in at_blocks(name, range(model.n_blocks), function)]


# -- attention ---------------------------------------------------------------------------------


def knockout(
    encoded: Encoded, blocks: Iterable[int], pairs: Sequence[tuple[str | Positions, str | Positions]]
) -> list[Edit]:
    """Blocked attention: in ``blocks``, the queries of each pair's second part no longer see its first part.

    ``pairs`` are ``(source, target)`` positions, e.g. ``("image", "question")``: information cannot flow
    from image to question.  The blocked weights are exactly 0 and each row still sums to 1.  A row's
    own token is never blocked.  The edits hold for this batch (its layouts give the positions).
    Under FlashAttention, which ignores such masks, they raise.
    """
    length = encoded.length
    blocked = torch.zeros(len(encoded), 1, length, length, dtype=torch.bool)
    for source, target in pairs:
        sources, targets = Positions.parse(source), Positions.parse(target)
        for row, layout in enumerate(encoded.layouts):
            keys, queries = (torch.from_numpy(part.indices(layout)) for part in (sources, targets))
            blocked[row, 0, queries[:, None], keys[None, :]] = True
    blocked.diagonal(dim1=-2, dim2=-1).fill_(False)

    def block_them(seen: torch.Tensor, site: Site) -> torch.Tensor:
        del site
        return seen & ~blocked.to(seen.device)

    return at_blocks("attn_mask", blocks, block_them)


# -- weights -----------------------------------------------------------------------------------


def _writers(model: LoadedModel) -> list[tuple[nn.Module, bool]]:
    """Modules that write the residual, each with whether its weight's rows (an embedding) are the vectors."""
    row = model.anatomy.family
    if row.attn_post_norm or row.mlp_post_norm:
        raise ModelError(
            f"family {row.model_type!r} normalises what a block writes, so a direction cannot be taken out of the "
            "weights; use ablate_everywhere"
        )
    found: list[tuple[nn.Module, bool]] = [(model.anatomy.embed, True)]
    for number, block in enumerate(model.anatomy.blocks):
        for path in (f"{row.attn}.{row.o}", f"{row.mlp}.{row.down}"):
            module = submodule(block, path)
            if not isinstance(module, nn.Linear):
                raise ModelError(f"block {number} has no linear layer at {path!r}; use ablate_everywhere")
            found.append((module, False))
    if model.anatomy.projector is not None:
        linears = [m for m in model.anatomy.projector.modules() if isinstance(m, nn.Linear)]
        if not linears or linears[-1].out_features != model.anatomy.d_model:
            raise ModelError("the projector does not end in a linear layer; use ablate_everywhere")
        found.append((linears[-1], False))
    return found


@contextmanager
@torch.no_grad()
def ablated_weights(model: LoadedModel, direction: torch.Tensor) -> Iterator[None]:
    """Inside the block, no weight can write the direction: ``W - r^ r^' W`` (arXiv 2406.11717).

    Embedding, attention output, MLP output and projector are changed in place and restored on
    leaving.  An untied copy of a tied embedding stays with the head, as only writing is ablated.

    Raises:
        ModelError: a family whose writers are not plain linear layers (experts, post-norms).
    """
    basis = _unit_rows(direction)
    writers = _writers(model)
    if model.anatomy.head.weight is model.anatomy.embed.weight:
        raise ModelError("this model ties its embedding to its head; use ablate_everywhere, which spares the head")
    saved: list[tuple[nn.Parameter, torch.Tensor]] = []
    try:
        for module, rows in writers:
            for parameter in module.parameters(recurse=False):
                saved.append((parameter, parameter.detach().clone()))
                q = basis.to(parameter.device)
                wide = parameter.detach().float()
                along = (wide @ q.T) @ q if rows or parameter.ndim == 1 else q.T @ (q @ wide)
                parameter.copy_((wide - along).to(parameter.dtype))
        yield
    finally:
        for parameter, before in saved:
            parameter.copy_(before)
