"""The exact, cheap patch engine: one recorded forward, then only what an intervention can change.  [own]

An intervention at block ``l`` and position ``p`` changes nothing up to block ``l`` and, where attention is causal,
nothing before ``p``.  So:

1. :func:`~.recording.record` runs the untouched model once and keeps how every block was called, the residuals, keys
   and values, and the values that will be written into other runs.
2. A :class:`~.cell.Cell` is one intervention on one recorded row.  Its *suffix* begins at the first position that it
   can change, which is read off the recorded attention masks (:mod:`.reach`): a picture whose tokens see each other is
   recomputed as a whole, a prefix model from its first token.
3. :func:`resume` walks the blocks upward once for many cells, a wavefront: a cell joins at the block that it changes,
   with the recorded residual of its suffix.  The model's own blocks are called, with their own arguments cut to the
   suffixes, and a stand-in for the cache that puts the recorded keys and values of earlier positions before the new
   ones.  The last block's MLP, the final norm and the unembedding see the last tokens only.
4. Cells of one recorded row share its prefix, so their suffixes, of whatever lengths, are laid one behind the other in
   one sequence, under a mask that keeps them apart: the prefix is read once for all of them.

Nothing is approximated; a resumed cell differs from :func:`~.cell.full`, a plain forward with hooks, by rounding only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from ..activations.sites import Site
from ..errors import NumericalError
from ..machine import give_back
from ..models.anatomy import LOGITS
from ..models.batching import out_of_memory
from ..models.loaded import LoadedModel
from .cell import Cell, Placed, Write, writing
from .reach import CACHE, suffix_starts
from .recording import Recording, first_of
from .seats import PACK, Seats


@torch.inference_mode()
def resume(
    model: LoadedModel, rec: Recording, cells: Sequence[Cell], max_tokens: int = 16384
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield ``(numbers of cells, logits float32 [cells, vocab])``, every cell once, in any order.

    ``max_tokens`` bounds the tokens of one wave; it is halved when memory runs out.  A wave's cells are many (every
    block of every pair), so it is unembedded in pieces: never an array of cells x vocabulary.
    """
    piece = max(1, LOGITS // model.anatomy.vocab_size)
    starts = _starts(rec, cells)
    lengths = [rec.last[cell.row] + 1 - start for cell, start in zip(cells, starts, strict=True)]
    for alike in _alike(lengths, max(PACK, model.anatomy.d_model // 4)):
        todo = sorted(alike, key=lambda n: (cells[n].entry, cells[n].row))
        while todo:
            count = max(1, max_tokens // max(lengths[n] for n in todo))
            some = todo[:count]
            try:
                last = _wave(model, rec, [cells[n] for n in some], [starts[n] for n in some])
                if last.device.type == "cpu":
                    give_back()  # else what C's allocator keeps of this wave stands beside the next one
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if len(some) == 1:
                    raise NumericalError(f"out of memory with one cell of {lengths[some[0]]} tokens") from None
                torch.cuda.empty_cache()
                max_tokens = max(1, len(some) // 2) * max(lengths[n] for n in todo)
                continue
            for at in range(0, len(some), piece):
                yield some[at : at + piece], rec.barred(model.anatomy.lens(last[at : at + piece]).float())
            todo = todo[count:]


def _starts(rec: Recording, cells: Sequence[Cell]) -> list[int]:
    """The first column of each cell's suffix."""
    reach = suffix_starts(rec).tolist()
    starts = []
    for cell in cells:
        first = min(reach[cell.row][p] for w in cell.writes for p in w.positions)
        first = first if cell.inherits is None else cell.inherits.stop
        if first < rec.low:
            raise NumericalError(f"a change reaches back to column {first}; residuals were kept from {rec.low} on")
        starts.append(first)
    return starts


def _alike(lengths: Sequence[int], pack: int) -> Iterator[list[int]]:
    """Numbers of cells whose suffixes fill packs of one size: short ones together, long ones of similar length."""
    left = sorted(range(len(lengths)), key=lambda n: -lengths[n])
    while left:
        longest = lengths[left[0]]
        least = 0 if longest <= pack // 2 else int(0.9 * longest)
        count = sum(lengths[n] > least for n in left)  # they are sorted, so these come first
        yield left[:count]
        left = left[count:]


def _wave(model: LoadedModel, rec: Recording, cells: Sequence[Cell], starts: Sequence[int]) -> torch.Tensor:
    """The last block's output ``[n, d_model]`` at each row's last token, for cells sorted by entry."""
    seats: Seats | None = None
    hidden = rec.left[-1].new_empty(0, rec.left[-1].shape[-1])  # [N, d]: all suffixes, one behind the other
    joined, rooms = 0, (_Room(), _Room())
    for block in range(cells[0].entry, model.n_blocks + 1):
        joining = [n for n in range(joined, len(cells)) if cells[n].entry == block]
        hidden = hidden.to(rec.left[block - 1].device)
        if joining:
            entered = [_enter(rec, cells[n], block, starts[n]) for n in joining]
            hidden, joined = torch.cat([hidden, *entered]), joining[-1] + 1
        if joining or seats is None or seats.take.device != hidden.device:
            seats = Seats(rec, cells[:joined], starts, max(PACK, model.anatomy.d_model // 4), hidden.device)
        if block < model.n_blocks:
            hidden = _run_block(model, rec, cells[:joined], seats, hidden, block, rooms)
    assert seats is not None
    return hidden[seats.ends]


def _enter(rec: Recording, cell: Cell, block: int, start: int) -> torch.Tensor:
    """What enters ``block`` in a cell ``[S, d]``: the recorded residual, with writes below it in place."""
    cut = slice(start - rec.low, rec.last[cell.row] + 1 - rec.low)
    hidden = rec.left[block - 1][cell.row, cut].clone()
    for write in _own_writes(cell):
        if write.site == Site("resid_post", block - 1):
            hidden[torch.tensor(write.positions) - start] = write.value().to(hidden)
    return hidden + rec.added[block - 1][cell.row, cut] if block - 1 in rec.added else hidden


def _own_writes(cell: Cell) -> tuple[Write, ...]:
    """What is written inside the cell's suffix: nothing where the writes became its prefix."""
    return cell.writes if cell.inherits is None else ()


class _Room:
    """Memory that the blocks of a wave use in turn: on a CPU, fresh pages for each would cost a tenth of the time."""

    def __init__(self) -> None:
        self._kept: dict[torch.dtype, torch.Tensor] = {}

    def joined(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Two arrays ``[B, kv_heads, *, head_dim]`` behind each other; it stands until the next call."""
        if one.device.type != "cpu":  # a GPU's allocator hands the same memory out again
            return torch.cat([one, other], 2)
        shape = (*one.shape[:2], one.shape[2] + other.shape[2], one.shape[3])
        kept = self._kept.get(one.dtype)
        if kept is None or kept.numel() < math.prod(shape):
            kept = self._kept[one.dtype] = one.new_empty(2 * math.prod(shape))
        return torch.cat([one, other], 2, out=kept[: math.prod(shape)].view(shape))


class _Prefix:
    """Stands where a block expects its cache: recorded keys and values come before those of the suffixes."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, rooms: tuple[_Room, _Room]) -> None:
        self.keys, self.values, self.rooms = keys, values, rooms  # [B, kv_heads, stop, head_dim]
        self.own: torch.Tensor | None = None

    def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        """What the block attends to: the prefix, then its own."""
        self.own = value_states  # [B, kv_heads, Q, head_dim]
        keys, values = self.rooms
        return keys.joined(self.keys, key_states), values.joined(self.values, value_states)


def _prefix(kept: Sequence[tuple[torch.Tensor, int]], stop: int) -> torch.Tensor:
    """Recorded keys or values before the suffixes ``[B, kv_heads, stop, head_dim]``; a view where one row is meant."""
    first, row = kept[0]
    if all(one is first and there == row for one, there in kept):
        return first[row, :, :stop].expand(len(kept), -1, -1, -1)
    return torch.stack([one[there, :, :stop] for one, there in kept])


def _run_block(
    model: LoadedModel,
    rec: Recording,
    cells: Sequence[Cell],
    seats: Seats,
    hidden: torch.Tensor,
    block: int,
    rooms: tuple[_Room, _Room],
) -> torch.Tensor:
    """One block over the suffixes of all joined cells: ``[N, d]`` in and out."""
    recorded = rec.calls[block]
    call = {name: seats.argument(name, value) for name, value in recorded.items() if name != "attention_mask"}
    call["attention_mask"] = seats.mask(recorded.get("attention_mask"), hidden.dtype)
    cache = _Prefix(
        _prefix([(source.keys[block], row) for source, row in seats.prefixes], seats.stop),
        _prefix([(source.values[block], row) for source, row in seats.prefixes], seats.stop),
        rooms,
    )
    call[next(name for name in CACHE if name in call)], call["use_cache"] = cache, True

    def values_of(n: int) -> torch.Tensor:  # [kv_heads, end, head_dim], as this cell's attention reads them
        assert cache.own is not None
        b, at = divmod(seats.seat[n], seats.take.shape[1])
        start = int(seats.start[b, at])
        return torch.cat([cache.values[b, :, :start], cache.own[b, :, at : at + seats.length[n]]], 1)

    writes: list[Placed] = [
        (seats.seat[n] - (rec.last[cell.row] + 1 - seats.length[n]), write, n)
        for n, cell in enumerate(cells)
        for write in _own_writes(cell)
        if write.site.block == block
    ]
    last = _mlp_at(model, block, seats.back[seats.ends]) if block == model.n_blocks - 1 else nullcontext()
    with last, writing(model, writes, values_of):
        out = first_of(model.anatomy.blocks[block](hidden[seats.take], **call))  # [B, Q, d]
    out = out.flatten(0, 1)[seats.back]  # [N, d]
    if block in rec.added:
        rows, columns = (x.flatten()[seats.back] for x in (seats.row[:, None].expand_as(seats.take), seats.column))
        out = out + rec.added[block][rows, columns - rec.low].to(out.device)
    return out


@contextmanager
def _mlp_at(model: LoadedModel, block: int, seats: torch.Tensor) -> Iterator[None]:
    """Let a block's MLP see some seats of the flattened batch only; of the last block nothing else is read."""
    mlp = getattr(model.anatomy.blocks[block], model.anatomy.family.mlp, None)
    if mlp is None or isinstance(mlp, nn.Linear):  # a family that has its MLP's layers in the block itself
        yield
        return
    shape: list[torch.Size] = []

    def entering(module: Any, args: Any) -> Any:
        shape[:] = [args[0].shape] if args and args[0].ndim == 3 else []
        return (args[0].flatten(0, 1)[seats][None], *args[1:]) if shape else None

    def leaving(module: Any, args: Any, output: Any) -> Any:
        if not shape:
            return None
        found = first_of(output)
        spread = found.new_zeros(shape[0][0] * shape[0][1], found.shape[-1])
        spread[seats] = found.flatten(0, -2)
        whole = spread.unflatten(0, shape[0][:2])
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    handles = [mlp.register_forward_pre_hook(entering), mlp.register_forward_hook(leaving)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
