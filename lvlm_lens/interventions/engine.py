"""The exact, cheap patch engine: one recorded forward, then only what an intervention can change.  [own]

An intervention at block ``l`` and position ``p`` changes nothing up to block ``l`` and, where attention is causal,
nothing before ``p``.  So:

1. :func:`record` runs the untouched model once.  It keeps how every block was called (mask, rotary embeddings), what
   entered it, the keys and values it made, and, at the asked sites, the values that will be written into other runs.
2. A :class:`Cell` is one intervention on one recorded row: what is written, where.  Its *suffix* begins at the first
   position that it can change, which is read off the recorded attention masks, not assumed: a picture whose tokens see
   each other is recomputed as a whole, a prefix model from its first token.
3. :func:`resume` walks the blocks upward once for all cells with the same suffix, a wavefront: a cell joins at the
   block it changes, with the recorded residual of its suffix.  The model's own blocks are called, with their own
   arguments cut to the suffix, and a stand-in for the cache that puts the recorded keys and values of the earlier
   positions before the new ones.  The last block's
   MLP, the final norm and the unembedding see the last token only.
4. Cells of one recorded row share its prefix, so several suffixes are laid one behind the other in a single sequence,
   under a mask that keeps them apart: the prefix is read once for all of them, not copied once a cell.

Nothing is approximated; a resumed cell differs from :func:`full`, a plain forward with hooks, by rounding only.
Blocks that read what is not recorded here are not resumed: :func:`obstacle` names the reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from ..activations.capture import eager_blocks
from ..activations.hooks import HookFunction, attached
from ..activations.sites import Site, Tap, tap
from ..errors import NumericalError, SiteError
from ..models.encode import Encoded
from ..models.loaded import LoadedModel

UNRESUMABLE = {
    "linear": "some blocks keep a recurrent state instead of keys and values",
    "per_layer_inputs": "blocks read per-layer embeddings beside the residual",
    "shared_kv": "late blocks read the keys and values of earlier ones",
    "cross_attention": "some blocks read the picture's own states beside the residual",
    "chunked": "attention is scaled by each token's place, which a suffix run by itself would miscount",
}
_KNOWN = ("position_embeddings", "attention_mask", "position_ids", "cache_position")
_CACHE = ("past_key_values", "past_key_value", "layer_past")
"""Names under which blocks take their cache."""
_CROSS = ("cross_attention_states", "cross_attention_mask", "full_text_row_masked_out_mask")


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


@dataclass
class Recording:
    """One untouched forward of ``R`` rows and ``T`` columns.  See :func:`record`."""

    rows: int
    length: int
    last: list[int]  # column of the last attended token of each row
    attended: torch.Tensor  # bool [R, T]
    low: int  # first column of which residuals were kept
    logits: torch.Tensor | None = None  # float32 [R, vocab], last token
    calls: list[dict[str, Any]] = field(default_factory=list)  # what each block was called with
    pre: list[torch.Tensor] = field(default_factory=list)  # L + 1 of [R, T - low, d]; the last is the final output
    added: dict[int, torch.Tensor] = field(default_factory=dict)  # what the model adds after a block [R, T - low, d]
    keys: dict[int, torch.Tensor] = field(default_factory=dict)  # [R, kv_heads, T, head_dim]
    values: dict[int, torch.Tensor] = field(default_factory=dict)  # [R, kv_heads, T, head_dim]
    kept: dict[Site, torch.Tensor] = field(default_factory=dict)  # [R, W, ...] at the asked columns
    columns: list[dict[int, int]] = field(default_factory=list)  # column -> its place in W, for each row

    def take(self, site: Site, row: int, positions: Sequence[int], head: int | None = None) -> torch.Tensor:
        """The recorded value ``[P, ...]`` of a site at some columns of a row."""
        value = self.kept[site][row, [self.columns[row][p] for p in positions]]
        return value if head is None else value[:, head]


class _Keeper(DynamicCache):
    """A cache that remembers the keys and values of each block under the block's number."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        self.made[layer_idx] = (key_states, value_states)
        return key_states, value_states  # a prefill attends to its own keys only; a second copy is not needed


class _Prefix:
    """Stands where a block expects its cache: recorded keys and values come before those of the suffix."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys, self.values = keys, values  # [B, kv_heads, P, head_dim]
        self.own: torch.Tensor | None = None

    def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        self.own = value_states  # [B, kv_heads, c * S, head_dim]
        return torch.cat([self.keys, key_states], 2), torch.cat([self.values, value_states], 2)

    @property
    def layers(self) -> Any:
        """Cross-attention blocks find the recorded keys of the picture here."""
        return _AnyBlock(self)


@dataclass(frozen=True)
class _AnyBlock:
    prefix: _Prefix

    def __getitem__(self, layer: int) -> _Prefix:
        return self.prefix


def _first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


# -- 1. recording --------------------------------------------------------------------------------


@torch.inference_mode()
def record(
    model: LoadedModel,
    encoded: Encoded,
    sites: Sequence[Site] = (),
    columns: Sequence[Sequence[int]] | None = None,
    low: int | None = 0,
) -> Recording:
    """Run the model once, untouched, and keep what cells will need.

    Args:
        model: the model.
        encoded: ``R`` rows.
        sites: whose values are kept at ``columns`` (one list of columns a row), to be written into other runs.
        columns: see ``sites``.
        low: first column whose residuals are kept, for resuming; ``None`` keeps nothing to resume from.
    """
    blocks = model.anatomy.blocks
    columns = [[layout.last] for layout in encoded.layouts] if columns is None else columns
    rec = Recording(
        len(encoded),
        encoded.length,
        [layout.last for layout in encoded.layouts],
        encoded.inputs["attention_mask"].bool(),
        low or 0,
        columns=[{column: place for place, column in enumerate(row)} for row in columns],
    )
    width = max(len(row) for row in columns)
    index = torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in columns], device=model.device)  # [R, W]
    before: list[torch.Tensor] = []

    def entering(module: Any, args: Any, kwargs: Any) -> None:
        names = list(inspect.signature(type(module).forward).parameters)[1:]  # the class's: instances may be wrapped
        call = {**dict(zip(names, args, strict=False)), **kwargs}
        hidden = call.pop("hidden_states") if "hidden_states" in call else call.pop(names[0])
        if before and hidden.data_ptr() != before[0].data_ptr():  # deepstack: something was added on the way
            difference = (hidden - before[0])[:, rec.low :]
            if bool(difference.any()):
                rec.added[len(rec.calls) - 1] = difference
        rec.calls.append({k: None if isinstance(v, DynamicCache) else v for k, v in call.items()})
        rec.pre.append(hidden[:, rec.low :].clone() if rec.low else hidden)

    def leaving(module: Any, args: Any, output: Any) -> None:
        before[:] = [_first(output)]

    def keep(value: torch.Tensor, site: Site) -> None:
        source = value.transpose(1, 2) if site.name == "pattern" else value  # pattern: [R, T, H, keys]
        where = index.to(value.device).reshape(*index.shape, *[1] * (source.ndim - 2))
        rec.kept[site] = source.gather(1, where.expand(-1, -1, *source.shape[2:])).clone()

    # a recurrent state wants a cache of its own kind; such families run in full, so nothing is kept for them
    cache = _Keeper() if low is not None and "linear" not in model.anatomy.family.flow else None
    handles = []
    if cache is not None:
        handles += [block.register_forward_pre_hook(entering, with_kwargs=True) for block in blocks]
        handles += [block.register_forward_hook(leaving) for block in blocks]
    patterns = [site.block for site in sites if site.name == "pattern" and site.block is not None]
    try:
        with eager_blocks(model, patterns), attached([(s, tap(s, model.anatomy), keep) for s in sites]):
            rec.logits = _last_logits(model, encoded, cache)
    finally:
        for handle in handles:
            handle.remove()
    if cache is not None:
        rec.pre.append(before[0][:, rec.low :])
        for block, (key, value) in cache.made.items():
            rec.keys[block], rec.values[block] = key, value
    return rec


def _last_logits(model: LoadedModel, encoded: Encoded, cache: DynamicCache | None = None) -> torch.Tensor:
    """Float32 ``[R, vocab]`` at the last attended token of each row."""
    inputs = {**model.forward_inputs(encoded), "past_key_values": cache, "use_cache": cache is not None}
    # blocks that share keys drop all but the last token when told that only it is unembedded
    if encoded.left_padded and "shared_kv" not in model.anatomy.family.flow:
        return model.model(**inputs, logits_to_keep=1).logits[:, -1].float()
    last = [layout.last for layout in encoded.layouts]
    return model.model(**inputs).logits[range(len(encoded)), last].float()


# -- 2. what a cell can change -------------------------------------------------------------------


def obstacle(model: LoadedModel, rec: Recording) -> str | None:
    """Why cells of this recording cannot be resumed exactly, or ``None`` where they can."""
    row = model.anatomy.family
    for flow, reason in UNRESUMABLE.items():
        if flow in row.flow:
            return reason
    if len(rec.calls) != model.n_blocks:
        return f"{len(rec.calls)} block calls in one forward, {model.n_blocks} expected"
    for block, call in enumerate(rec.calls):
        if block not in rec.keys:
            return f"block {block} keeps no keys and values"
        if not any(name in call for name in _CACHE):
            return f"block {block} takes its cache under a name that is not known"
        strange = [k for k, v in call.items() if isinstance(v, torch.Tensor) and k not in (*_KNOWN, *_CROSS)]
        if strange:
            return f"block {block} also reads {', '.join(strange)}"
        mask = call.get("attention_mask")
        if mask is not None and (not isinstance(mask, torch.Tensor) or mask.ndim != 4):
            return f"block {block} takes an attention mask that is not [batch, heads, query, key]"
        attn = getattr(model.anatomy.blocks[block], row.attn, None)
        if mask is None and not getattr(attn, "is_causal", "cross_attention_states" in call):
            return f"attention of block {block} is not causal"
    return None


def suffix_starts(rec: Recording) -> torch.Tensor:
    """``[R, T]``: for each position, the first one that a change there can reach, read off the masks."""
    reach = torch.arange(rec.length).repeat(rec.rows, 1)  # [R, T]: the last key that a query reads
    for mask in {id(c["attention_mask"]): c["attention_mask"] for c in rec.calls if _is_mask(c)}.values():
        seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        keys = torch.arange(rec.length, device=mask.device)
        furthest = (seen.any(1) * keys).amax(-1).expand(rec.rows, -1)  # [R, T]
        reach = torch.maximum(reach, furthest.cpu())
    # nothing reads the output of padding
    reach = torch.where(rec.attended.cpu(), reach, torch.arange(rec.length))
    starts = []
    for far in reach.tolist():
        own, furthest, start = [], -1, 0
        for position, reached in enumerate(far):  # a suffix may begin where no earlier query reads beyond it
            if furthest < position:
                start = position
            own.append(start)
            furthest = max(furthest, reached)
        starts.append(own)
    return torch.tensor(starts)


def _is_mask(call: dict[str, Any]) -> bool:
    return call.get("attention_mask") is not None and "cross_attention_states" not in call


# -- 3. resuming ---------------------------------------------------------------------------------


@torch.inference_mode()
def resume(
    model: LoadedModel, rec: Recording, cells: Sequence[Cell], max_tokens: int = 16384
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield ``(numbers of cells, logits float32 [cells, vocab])``, every cell once, in any order.

    ``max_tokens`` bounds the tokens of one wave; it is halved when memory runs out.
    """
    for (start, end), numbers in _groups(rec, cells).items():
        numbers.sort(key=lambda n: (cells[n].entry, cells[n].row))
        todo = list(numbers)
        while todo:
            wave = todo[: max(1, max_tokens // (end - start))]
            try:
                logits = _wave(model, rec, [cells[n] for n in wave], start, end)
            except torch.OutOfMemoryError:
                if len(wave) == 1:
                    raise NumericalError(f"out of memory with one cell of {end - start} tokens") from None
                torch.cuda.empty_cache()
                max_tokens = max(1, len(wave) // 2) * (end - start)
                continue
            yield wave, logits
            todo = todo[len(wave) :]


def _groups(rec: Recording, cells: Sequence[Cell]) -> dict[tuple[int, int], list[int]]:
    """Numbers of cells by their suffix ``start, end``."""
    starts = suffix_starts(rec).tolist()
    groups: dict[tuple[int, int], list[int]] = {}
    for number, cell in enumerate(cells):
        if cell.inherits is not None:
            first = cell.inherits.stop
        else:
            first = min(starts[cell.row][p] for w in cell.writes for p in w.positions)
        if first < rec.low:
            raise NumericalError(f"a change reaches back to column {first}; residuals were kept from {rec.low} on")
        groups.setdefault((first, rec.last[cell.row] + 1), []).append(number)
    return groups


def _wave(model: LoadedModel, rec: Recording, cells: Sequence[Cell], start: int, end: int) -> torch.Tensor:
    """Logits ``[n, vocab]`` of cells, sorted by entry, that share the suffix ``start .. end``."""
    span, n_blocks = end - start, model.n_blocks
    hidden = rec.pre[0].new_empty(0, span, rec.pre[0].shape[-1])  # [joined, S, d]
    for block in range(cells[0].entry, n_blocks + 1):
        joining = [cell for cell in cells[len(hidden) :] if cell.entry == block]
        if joining:
            hidden = torch.cat([hidden.to(rec.pre[block].device), _enter(rec, joining, block, start, end)])
        if block < n_blocks:
            hidden = _run_block(model, rec, cells[: len(hidden)], hidden, block, start, end)
    return model.anatomy.lens(hidden[:, -1]).float()


def _own_writes(cell: Cell) -> tuple[Write, ...]:
    """What is written inside the cell's suffix: nothing where the writes became its prefix."""
    return cell.writes if cell.inherits is None else ()


def _enter(rec: Recording, cells: Sequence[Cell], block: int, start: int, end: int) -> torch.Tensor:
    """What enters ``block`` in each cell ``[n, S, d]``: the recorded residual, with resid_post writes below it."""
    rows = torch.tensor([cell.row for cell in cells], device=rec.pre[block].device)
    hidden = rec.pre[block][rows, start - rec.low : end - rec.low]  # [n, S, d], a copy
    for number, cell in enumerate(cells):
        for write in _own_writes(cell):
            if write.site == Site("resid_post", block - 1):
                at = torch.tensor(write.positions, device=hidden.device)
                value = write.value().to(hidden)
                if block - 1 in rec.added:
                    value = value + rec.added[block - 1][cell.row, at - rec.low]
                hidden[number, at - start] = value
    return hidden


def _run_block(
    model: LoadedModel, rec: Recording, cells: Sequence[Cell], hidden: torch.Tensor, block: int, start: int, end: int
) -> torch.Tensor:
    """One block over the suffixes of all joined cells: ``[n, S, d]`` in and out."""
    n, span, width = hidden.shape
    by_row: dict[tuple[int, int, int], list[int]] = {}  # cells over one prefix: its recording, its row, the cell's row
    sources: dict[int, Recording] = {}
    for number, cell in enumerate(cells):
        source, there = (cell.inherits.recording, cell.inherits.row) if cell.inherits else (rec, cell.row)
        sources[id(source)] = source
        by_row.setdefault((id(source), there, cell.row), []).append(number)
    # suffixes laid behind each other cost c * S masked keys a query; d / 4 of them are nothing beside the MLP
    most = max(1, max(map(len, by_row.values())))
    pack = max(1, min(most, width // 4 // span)) if start else 1
    pack = -(-most // -(-most // pack))  # as even as it can be, so that few places stay empty
    chunks = [(key, own[i : i + pack]) for key, own in by_row.items() for i in range(0, len(own), pack)]
    places = torch.tensor([[*own, *[own[0]] * (pack - len(own))] for _, own in chunks], device=hidden.device)  # [B, c]
    where = {number: b * pack + k for b, (_, own) in enumerate(chunks) for k, number in enumerate(own)}
    rows = torch.tensor([row for (_, _, row), _ in chunks], device=hidden.device)  # [B]
    prefixes = [(sources[source], there) for (source, there, _), _ in chunks]
    packed = hidden[places.flatten()].reshape(len(chunks), pack * span, width)  # [B, c * S, d]

    call = {k: _cut(k, v, rows, start, end, pack) for k, v in rec.calls[block].items()}
    crossing = call.get("cross_attention_states") is not None
    stop = rec.length if crossing else start
    if crossing:  # its keys are the picture's and do not move; without states they are read from the cache
        call["cross_attention_states"], keys, values = None, rec.keys[block][rows], rec.values[block][rows]
    else:
        call["attention_mask"] = _mask(rec.calls[block].get("attention_mask"), rows, start, end, pack, packed)
        keys = _prefix([(source.keys[block], there) for source, there in prefixes], stop)
        values = _prefix([(source.values[block], there) for source, there in prefixes], stop)
    cache = _Prefix(keys, values)
    call[next(name for name in _CACHE if name in call)], call["use_cache"] = cache, True

    def values_of(number: int) -> torch.Tensor:  # [kv_heads, end, head_dim], as this cell's attention reads them
        b, k = divmod(where[number], pack)
        assert cache.own is not None
        return torch.cat([cache.values[b], cache.own[b, :, k * span : (k + 1) * span]], 1)

    writes = [
        (where[number] * span - start, write, number)
        for number, cell in enumerate(cells)
        for write in _own_writes(cell)
        if write.site.block == block
    ]
    ends = [k * span - 1 for k in range(1, pack + 1)]
    last = _mlp_at(model, block, ends) if block == model.n_blocks - 1 and span > 1 else nullcontext()
    with last, _writing(model, writes, values_of):
        out = _first(model.anatomy.blocks[block](packed, **call)).reshape(len(chunks) * pack, span, width)
    out = out[[where[number] for number in range(n)]]  # [n, S, d]
    if block in rec.added:
        cut = slice(start - rec.low, end - rec.low)
        out = out + rec.added[block][[cell.row for cell in cells], cut].to(out.device)
    return out


@contextmanager
def _mlp_at(model: LoadedModel, block: int, columns: list[int]) -> Iterator[None]:
    """Let a block's MLP see some columns only; in the last block nothing but the last token of a suffix is read."""
    mlp = getattr(model.anatomy.blocks[block], model.anatomy.family.mlp, None)
    if mlp is None or isinstance(mlp, nn.Linear):  # a family that has its MLP's layers in the block itself
        yield
        return
    width: list[int] = []

    def entering(module: Any, args: Any) -> Any:
        width[:] = [args[0].shape[1]] if args and args[0].ndim == 3 else []
        return (args[0][:, columns], *args[1:]) if width else None

    def leaving(module: Any, args: Any, output: Any) -> Any:
        if not width:
            return None
        found = _first(output)
        spread = found.new_zeros(found.shape[0], width[0], found.shape[-1])
        spread[:, columns] = found
        return (spread, *output[1:]) if isinstance(output, tuple) else spread

    handles = [mlp.register_forward_pre_hook(entering), mlp.register_forward_hook(leaving)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _prefix(kept: Sequence[tuple[torch.Tensor, int]], stop: int) -> torch.Tensor:
    """Recorded keys or values before the suffix ``[B, kv_heads, P, head_dim]``; a view where one row is meant."""
    first, row = kept[0]
    if all(one is first and there == row for one, there in kept):
        return first[row, :, :stop].expand(len(kept), -1, -1, -1)
    return torch.stack([one[there, :, :stop] for one, there in kept])


def _cut(name: str, value: Any, rows: torch.Tensor, start: int, end: int, pack: int) -> Any:
    """A block's argument for the suffix of some rows, repeated for the suffixes laid behind each other."""
    if isinstance(value, tuple):
        return tuple(_cut(name, item, rows, start, end, pack) for item in value)
    if not isinstance(value, torch.Tensor) or name == "attention_mask" or name == "cross_attention_states":
        return value
    if name == "cache_position":
        return value[start:end].repeat(pack)
    sequence = value.ndim - (1 if name == "position_ids" else 2)  # [.., R, T] or [.., R, T, D]
    batch = 0 if name in _CROSS else sequence - 1
    if value.shape[batch] > 1:
        value = value.index_select(batch, rows.to(value.device))
    value = value.narrow(sequence, start, end - start)
    return torch.cat([value] * pack, sequence) if pack > 1 else value


def _mask(
    recorded: torch.Tensor | None, rows: torch.Tensor, start: int, end: int, pack: int, like: torch.Tensor
) -> torch.Tensor | None:
    """The attention mask ``[B, 1, c * S, start + c * S]`` of suffixes laid behind each other."""
    span = end - start
    if recorded is None:  # plainly causal, no padding
        if span == pack == 1 or start == 0:
            return (
                None  # one query reads every key; or nothing stands before, and the kernel's own causal mask is right
            )
        part = torch.ones(1, 1, span, end, dtype=torch.bool, device=like.device).tril(start)
    else:
        part = recorded[rows] if recorded.shape[0] > 1 else recorded
        part = part[:, :, start:end, :end]  # [B, 1, S, end]
    if pack == 1:
        return part
    blocked = False if part.dtype == torch.bool else torch.finfo(part.dtype).min
    mask = part.new_full((*part.shape[:2], pack * span, start + pack * span), blocked)
    for k in range(pack):
        queries = slice(k * span, (k + 1) * span)
        mask[:, :, queries, :start] = part[..., :start]
        mask[:, :, queries, start + k * span : start + (k + 1) * span] = part[..., start:]
    return mask


# -- 4. writing ----------------------------------------------------------------------------------

_Placed = tuple[int, Write, int]
"""Offset from a column to its row in the flattened batch, the write, and the number of its cell."""


def _writing(model: LoadedModel, writes: Sequence[_Placed], values_of: Callable[[int], torch.Tensor]) -> Any:
    """Hooks that put every write in place inside the blocks that run."""
    by_site: dict[Site, list[_Placed]] = {}
    for placed in writes:
        by_site.setdefault(placed[1].site, []).append(placed)
    hooks: list[tuple[Site, Tap, HookFunction]] = []
    for site, own in by_site.items():
        spoken = Site("z", site.block) if site.name == "pattern" else site  # a pattern acts through what it gathers
        hooks.append((spoken, tap(spoken, model.anatomy), _writer(own, values_of)))
    return attached(hooks) if hooks else nullcontext()


def _writer(writes: Sequence[_Placed], values_of: Callable[[int], torch.Tensor]) -> HookFunction:
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


# -- 5. the plain forward ------------------------------------------------------------------------


@torch.inference_mode()
def full(model: LoadedModel, encoded: Encoded, cells: Sequence[Cell]) -> torch.Tensor:
    """Logits float32 ``[cells, vocab]`` by plain forwards with hooks: the definition that :func:`resume` must meet.

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
        cache = _Keeper() if any(w.site.name == "pattern" for _, w, _ in writes) else None

        def values_of(number: int, cache: _Keeper | None = cache) -> torch.Tensor:
            assert cache is not None
            return cache.made[max(cache.made)][1][cells[number].row]  # the block that is running made the newest

        with _writing(model, writes, values_of):
            logits = _last_logits(model, encoded, cache)
        for row, number in chosen.items():
            result[number] = logits[row]
    return torch.stack(result)  # type: ignore[arg-type]
