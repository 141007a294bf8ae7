"""A cell: one intervention on one recorded row; and the plain forward with hooks that defines what it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from ..activations.hooks import HookFunction, attached
from ..activations.sites import Site, Tap, tap
from ..errors import SiteError
from ..models.encode import Encoded
from ..models.loaded import LoadedModel
from .recording import Keeper, Recording, last_logits


@dataclass(frozen=True)
class Write:
    """Put ``value()``, ``[P, ...]``, at ``positions`` (padded columns) of a site; one head of it, or all."""

    site: Site
    positions: tuple[int, ...]
    value: Callable[[], torch.Tensor]
    head: int | None = None


@dataclass(frozen=True)
class Inherited:
    """The writes of a cell make its columns before ``stop`` those of another recorded row; see :mod:`.inherit`."""

    recording: Recording
    row: int
    stop: int


@dataclass(frozen=True)
class Cell:
    """One intervention on one recorded row: everything that is written in it."""

    row: int
    writes: tuple[Write, ...]
    inherits: Inherited | None = None

    @property
    def entry(self) -> int:
        """The first block that must be run again; the number of blocks when only the last output changes."""
        return min(w.site.block + (w.site.name == "resid_post") for w in self.writes)  # type: ignore[operator]


# -- writing inside blocks --------------------------------------------------------------------------

Placed = tuple[int, Write, int]
"""Offset from a column to its row in the flattened batch, the write, and the number of its cell."""


def writing(model: LoadedModel, writes: Sequence[Placed], values_of: Callable[[int], torch.Tensor]) -> Any:
    """Hooks that put every write in place inside the blocks that run."""
    by_site: dict[Site, list[Placed]] = {}
    for placed in writes:
        by_site.setdefault(placed[1].site, []).append(placed)
    hooks: list[tuple[Site, Tap, HookFunction]] = []
    for site, own in by_site.items():
        spoken = Site("z", site.block) if site.name == "pattern" else site  # a pattern acts through what it gathers
        hooks.append((spoken, tap(spoken, model.anatomy), _writer(own, values_of)))
    return attached(hooks) if hooks else nullcontext()


def _writer(writes: Sequence[Placed], values_of: Callable[[int], torch.Tensor]) -> HookFunction:
    def write_all(value: torch.Tensor, site: Site) -> torch.Tensor:
        flat = value.flatten(0, 1).clone()  # [B * columns, ...]
        for offset, write, number in writes:
            at = torch.tensor(write.positions, device=flat.device) + offset
            new = write.value().to(flat.device)
            if write.site.name == "pattern":
                new = _gathered(new, values_of(number), write.head)
            if write.head is None:
                flat[at] = new.to(flat.dtype)
            else:
                flat[at, write.head] = new.to(flat.dtype)
        return flat.reshape(value.shape)

    return write_all


def _gathered(pattern: torch.Tensor, values: torch.Tensor, head: int | None) -> torch.Tensor:
    """Attention output before o_proj, ``[P, H, head_dim]`` (``[P, head_dim]`` of one head), under given patterns.

    ``pattern`` is ``[P, H, keys]`` (``[P, keys]``), ``values`` ``[kv_heads, end, head_dim]``.
    """
    keys = values.shape[1]
    if head is not None:
        raise SiteError("the pattern is patched in all heads at once; patch z for a single head")
    grouped = pattern[..., :keys].unflatten(1, (len(values), -1))  # [P, kv_heads, group, keys]
    return torch.einsum("pkgs,ksd->pkgd", grouped.to(values.dtype), values).flatten(1, 2)


# -- the plain forward -------------------------------------------------------------------------------


@torch.inference_mode()
def full(model: LoadedModel, encoded: Encoded, cells: Sequence[Cell]) -> torch.Tensor:
    """Logits float32 ``[cells, vocab]`` by plain forwards with hooks: what :func:`resume` has to reproduce.

    One forward takes at most one cell of each row.
    """
    result: list[torch.Tensor | None] = [None] * len(cells)
    left = list(range(len(cells)))
    while left:
        chosen: dict[int, int] = {}
        for number in left:
            chosen.setdefault(cells[number].row, number)
        left = [number for number in left if number not in set(chosen.values())]
        writes = [(row * encoded.length, w, number) for row, number in chosen.items() for w in cells[number].writes]
        cache = Keeper() if any(w.site.name == "pattern" for _, w, _ in writes) else None

        def values_of(number: int, cache: Keeper | None = cache) -> torch.Tensor:
            assert cache is not None
            return cache.made[max(cache.made)][1][cells[number].row]  # the block that is running made the newest

        with writing(model, writes, values_of):
            logits = last_logits(model, encoded, cache)
        for row, number in chosen.items():
            result[number] = logits[row]
    return torch.stack(result)  # type: ignore[arg-type]
