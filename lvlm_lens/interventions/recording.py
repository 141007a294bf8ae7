"""One untouched forward, and what of it later runs start from, read, or write elsewhere."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from ..activations.capture import eager_blocks
from ..activations.hooks import attached
from ..activations.sites import Site, tap
from ..models.encode import Encoded
from ..models.loaded import LoadedModel
from ..tolerance import BARRED


@dataclass
class Recording:
    """One untouched forward of ``R`` rows and ``T`` columns.  See :func:`record`."""

    rows: int
    length: int
    last: list[int]  # column of the last attended token of each row
    attended: torch.Tensor  # bool [R, T]
    low: int  # first column of which residuals were kept
    logits: torch.Tensor | None = None  # float32 [R, vocab], last token
    order: list[int] = field(default_factory=list)  # blocks as they ran
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)  # what each block was called with
    left: dict[int, torch.Tensor] = field(default_factory=dict)  # after a block [R, T - low, d]; -1: before the first
    added: dict[int, torch.Tensor] = field(default_factory=dict)  # what the model adds after a block [R, T - low, d]
    keys: dict[int, torch.Tensor] = field(default_factory=dict)  # [R, kv_heads, T, head_dim]
    values: dict[int, torch.Tensor] = field(default_factory=dict)  # [R, kv_heads, T, head_dim]
    kept: dict[Site, torch.Tensor] = field(default_factory=dict)  # [R, W, ...] at the asked columns
    columns: list[dict[int, int]] = field(default_factory=list)  # column -> its place in W, for each row

    def take(self, site: Site, row: int, positions: Sequence[int], head: int | None = None) -> torch.Tensor:
        """The recorded value ``[P, ...]`` of a site at some columns of a row."""
        value = self.kept[site][row, [self.columns[row][p] for p in positions]]
        return value if head is None else value[:, head]

    def at_last(self, hidden: torch.Tensor) -> torch.Tensor:
        """The last attended token of each row, ``[R, d]`` of ``[R, T, d]``."""
        dropped = self.length - hidden.shape[1]  # some families run their last blocks on the final positions only
        return hidden[range(len(hidden)), [column - dropped for column in self.last]]

    def barred(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits ``[n, vocab]`` with those tokens suppressed that the model's own forward suppresses."""
        assert self.logits is not None
        shut = (self.logits < -BARRED).all(0)
        return logits.masked_fill(shut, float(self.logits.min())) if bool(shut.any()) else logits


class Keeper(DynamicCache):
    """A cache that remembers the keys and values of each block under the block's number."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        """Remember what a block made."""
        self.made[layer_idx] = (key_states, value_states)
        return key_states, value_states  # a prefill attends to its own keys only; a second copy is not needed


def first_of(output: Any) -> torch.Tensor:
    """The residual in what a block returns."""
    return output[0] if isinstance(output, tuple) else output


@torch.inference_mode()
def record(
    model: LoadedModel,
    encoded: Encoded,
    sites: Sequence[Site] = (),
    columns: Sequence[Sequence[int]] | None = None,
    low: int | None = 0,
    *,
    keys: bool = True,
    after: Iterable[int] | None = None,
) -> Recording:
    """Run the model once, untouched, and keep what later runs will need.

    Args:
        model: the model.
        encoded: ``R`` rows.
        sites: whose values are kept at ``columns`` (one list of columns a row), to be written into other runs.
        columns: see ``sites``.
        low: first column whose residuals are kept, for running on; ``None`` keeps nothing to run on from.
        keys: also keep keys and values, which :func:`~.engine.resume` needs and :func:`~.rerun.rerun` does not.
        after: blocks whose outgoing residual is kept (-1: what enters the first); all by default.
    """
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
    wanted = None if after is None else set(after)
    latest: list[torch.Tensor] = []

    def keep_residual(block: int, hidden: torch.Tensor) -> None:
        if wanted is None or block in wanted:
            rec.left[block] = hidden[:, rec.low :].clone() if rec.low else hidden

    def entering(block: int) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            names = list(inspect.signature(type(module).forward).parameters)[1:]  # the class's: it may be wrapped
            call = {**dict(zip(names, args, strict=False)), **kwargs}
            hidden = call.pop("hidden_states") if "hidden_states" in call else call.pop(names[0])
            if not rec.order:
                keep_residual(-1, hidden)
            elif hidden.data_ptr() != latest[0].data_ptr() and hidden.shape == latest[0].shape:  # deepstack
                difference = (hidden - latest[0].to(hidden.device))[:, rec.low :]
                if bool(difference.any()):
                    rec.added[rec.order[-1]] = difference
            rec.order.append(block)
            rec.calls[block] = {k: None if isinstance(v, DynamicCache) else v for k, v in call.items()}

        return hook

    def leaving(block: int) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            latest[:] = [first_of(output)]
            keep_residual(block, latest[0])

        return hook

    def keep(value: torch.Tensor, site: Site) -> None:
        source = value.transpose(1, 2) if site.name == "pattern" else value  # pattern: [R, T, H, keys]
        where = index.to(value.device).reshape(*index.shape, *[1] * (source.ndim - 2))
        rec.kept[site] = source.gather(1, where.expand(-1, -1, *source.shape[2:])).clone()

    # a recurrent state wants a cache of its own kind, and such blocks cannot be resumed anyway
    cache = Keeper() if keys and low is not None and "linear" not in model.anatomy.family.flow else None
    handles = []
    for block, module in enumerate(model.anatomy.blocks if low is not None else ()):
        handles.append(module.register_forward_pre_hook(entering(block), with_kwargs=True))
        handles.append(module.register_forward_hook(leaving(block)))
    patterns = [site.block for site in sites if site.name == "pattern" and site.block is not None]
    try:
        with eager_blocks(model, patterns), attached([(s, tap(s, model.anatomy), keep) for s in sites]):
            rec.logits = last_logits(model, encoded, cache)
    finally:
        for handle in handles:
            handle.remove()
    for block, (key, value) in (cache.made if cache is not None else {}).items():
        rec.keys[block], rec.values[block] = key, value
    return rec


def last_logits(model: LoadedModel, encoded: Encoded, cache: DynamicCache | None = None) -> torch.Tensor:
    """Float32 ``[R, vocab]`` at the last attended token of each row, by the model's plain forward; gradients pass."""
    inputs = {**model.forward_inputs(encoded), "past_key_values": cache, "use_cache": cache is not None}
    # blocks that share keys drop all but the last token when told that only it is unembedded
    if encoded.left_padded and "shared_kv" not in model.anatomy.family.flow:
        return model.model(**inputs, logits_to_keep=1).logits[:, -1].float()
    last = [layout.last for layout in encoded.layouts]
    return model.model(**inputs).logits[range(len(encoded)), last].float()
