"""Suffixes of many cells laid one behind the other: where each token sits in a block's batch, and what it sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .cell import Cell
from .recording import Recording

PACK = 128
"""Fewest tokens that suffixes are packed to.  A token of a pack of n reads n masked keys, which are little beside the
prefix that each pack would otherwise copy, and nothing beside the MLP up to a quarter of the width."""


class Seats:
    """Where the ``N`` tokens of joined cells sit in the batch ``[B, Q]`` of packs that a block sees.

    Attributes:
        take: token of each seat ``[B, Q]``, a repeated one where it is empty; back: seat of each token ``[N]``.
        row: recorded row of each pack ``[B]``; column: of each seat ``[B, Q]``.
        cell, start: of each seat ``[B, Q]``, -1 for the cell of an empty seat.
        prefixes: recording and row of the keys and values before each pack.
        stop: columns that are read of them; low: how many of these are read by all.
        ends: last token of each cell ``[n]``; seat: first seat of each cell, in the flattened batch.
    """

    def __init__(
        self, rec: Recording, cells: Sequence[Cell], starts: Sequence[int], pack: int, device: torch.device
    ) -> None:
        lengths = [rec.last[cell.row] + 1 - start for cell, start in zip(cells, starts, strict=False)]
        by_prefix: dict[tuple[int, int, int], list[int]] = {}
        for n, cell in enumerate(cells):
            source, there = (cell.inherits.recording, cell.inherits.row) if cell.inherits else (rec, cell.row)
            by_prefix.setdefault((id(source), there, cell.row), []).append(n)
        longest = max(lengths)
        size = max(longest, min(pack, max(sum(lengths[n] for n in own) for own in by_prefix.values())))
        packs: list[list[int]] = []
        for own in by_prefix.values():
            # without a prefix there is nothing to share, and the kernel's own causal mask is right
            count = len(own) if any(starts[n] == 0 for n in own) else -(-sum(lengths[n] for n in own) // size)
            bins: list[list[int]] = [[] for _ in range(count)]
            for n in sorted(own, key=lambda n: -lengths[n]):  # the longest first, each to the emptiest
                min(bins, key=lambda b: sum(lengths[m] for m in b)).append(n)
            packs += bins
        width = max(sum(lengths[n] for n in own) for own in packs)
        before = np.cumsum([0, *lengths])  # first token of each cell
        take, column, owner, first = (np.full((len(packs), width), -1) for _ in range(4))
        self.seat, self.length = [0] * len(cells), lengths
        for b, own in enumerate(packs):
            take[b], column[b], first[b] = before[own[0]], starts[own[0]], starts[own[0]]
            at = 0
            for n in own:
                cut = slice(at, at + lengths[n])
                take[b, cut], column[b, cut] = _counting(before[n], lengths[n]), _counting(starts[n], lengths[n])
                owner[b, cut], first[b, cut] = n, starts[n]
                self.seat[n] = b * width + at
                at += lengths[n]
        back = np.empty(before[-1], dtype=np.int64)
        filled = owner >= 0
        back[take[filled]] = filled.ravel().nonzero()[0]
        self.ends = torch.from_numpy(before[1:] - 1).to(device)
        self.take, self.back = torch.from_numpy(take).to(device), torch.from_numpy(back).to(device)
        self.row = torch.tensor([cells[own[0]].row for own in packs], device=device)
        self.column, self.cell, self.start = (torch.from_numpy(x).to(device) for x in (column, owner, first))
        self.stop, self.low = max(starts[: len(cells)]), min(starts[: len(cells)])
        sources = [cells[own[0]].inherits for own in packs]
        self.prefixes = [
            (source.recording, source.row) if source else (rec, cells[own[0]].row)
            for source, own in zip(sources, packs, strict=True)
        ]
        # every query reads every key that stands there, or the first tokens of a row see only each other
        one_query = width == 1 and self.low == self.stop
        self.unmasked = one_query or (self.stop == 0 and all(len(own) == 1 for own in packs))
        self._masks: dict[int, torch.Tensor] = {}

    def argument(self, name: str, value: Any) -> Any:
        """A block's recorded argument at the seats' rows and columns."""
        if isinstance(value, tuple):
            return tuple(self.argument(name, item) for item in value)
        if not isinstance(value, torch.Tensor):
            return value
        if name == "cache_position":
            return value[self.column[0]]
        axis = value.ndim - (2 if name == "position_ids" else 3)  # of the rows: [.., R, T] or [.., R, T, D]
        row = self.row if value.shape[axis] > 1 else torch.zeros_like(self.row)
        return value[(slice(None),) * axis + (row[:, None], self.column)]  # [.., B, Q(, D)]

    def mask(self, recorded: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
        """The attention mask ``[B, heads or 1, Q, stop + Q]``: the prefix of each seat's cell, and the cell itself.

        What is made for a block that had none is added to scores of type ``dtype``.
        """
        if recorded is None and self.unmasked:
            return None
        if id(recorded) not in self._masks:
            columns = torch.arange(self.stop, device=self.column.device)
            own = (self.cell[:, :, None] == self.cell[:, None]) | (self.cell[:, :, None] < 0)
            if recorded is None:  # plainly causal, no padding: only what comes after ``low`` is hidden from anybody
                own &= self.column[:, None] <= self.column[:, :, None]
                after = columns[self.low :] < self.start[:, :, None]
                found = torch.zeros(*self.column.shape, self.stop + own.shape[2], dtype=dtype, device=own.device)
                found[..., self.low :].masked_fill_(~torch.cat([after, own], 2), torch.finfo(dtype).min)
                found = found[:, None]
            else:
                mine = torch.cat([columns < self.start[:, :, None], own], 2)[:, None]  # [B, 1, Q, K]
                keys = torch.cat([columns.expand(len(self.row), -1), self.column], 1)  # [B, K]: the column of every key
                row = self.row if recorded.shape[0] > 1 else torch.zeros_like(self.row)
                part = recorded[row[:, None], :, self.column].transpose(1, 2)  # [B, heads or 1, Q, T]
                part = part.gather(3, keys[:, None, None].expand(-1, *part.shape[1:3], -1))
                blocked = False if part.dtype == torch.bool else torch.finfo(part.dtype).min
                found = part.masked_fill(~mine, blocked)
            self._masks[id(recorded)] = found
        return self._masks[id(recorded)]


def _counting(first: int, count: int) -> np.ndarray:
    return np.arange(first, first + count)
