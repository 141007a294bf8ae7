"""Hooks on plain Hugging Face modules: one function that reads or replaces what stands at a tap.

A hook function gets the tensor at the site and may return another to put in its place.  Blocks
return a tensor in current transformers and a tuple in older ones, and take their residual as the
first argument or by name; both containers are kept.  Every hook counts its firings, and
:func:`attached` raises when one did not fire: a hook that stayed silent must never give a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import SiteError
from .masks import mask_hook
from .sites import Site, Tap

HookFunction = Callable[[torch.Tensor, Site], torch.Tensor | None]
"""``fn(value, site)``: return ``None`` to leave the value, or its replacement of the same shape."""


def _heads_apart(value: torch.Tensor, tap: Tap) -> torch.Tensor:
    return value if tap.heads is None else value.unflatten(-1, (-1, tap.head_dim or value.shape[-1]))


def _heads_together(value: torch.Tensor, tap: Tap) -> torch.Tensor:
    return value if tap.heads is None else value.flatten(-2)


class _Firing:
    """Calls the function on a site's value and counts."""

    def __init__(self, site: Site, tap: Tap, function: HookFunction) -> None:
        self.site, self.tap, self.function, self.count = site, tap, function, 0
        self.shape: torch.Size | None = None  # [batch, position], where the module itself sees flat rows
        self.moved: torch.Tensor | None = None  # what a write added to a value that the block holds a second time

    def on_block(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        del module
        self.shape = _first_tensor(args, kwargs)[1].shape[:2]

    def value(self, tensor: torch.Tensor) -> torch.Tensor:
        self.count += 1
        shown = tensor if self.shape is None else tensor.unflatten(0, self.shape)
        shown = shown if self.tap.scale == 1.0 else shown * self.tap.scale
        new = self.function(_heads_apart(shown, self.tap), self.site)
        if new is None:
            return tensor
        new = _heads_together(new, self.tap)
        new = new if self.tap.scale == 1.0 else new / self.tap.scale
        new = new if self.shape is None else new.flatten(0, 1)
        if new.shape != tensor.shape:
            raise SiteError(f"hook at {self.site} returned shape {tuple(new.shape)}, expected {tuple(tensor.shape)}")
        return new.to(tensor.dtype)

    def on_whole(self, module: torch.nn.Module, args: Any, output: Any) -> Any:
        """The block's output with what was written into the residual inside it."""
        del module, args
        moved, self.moved = self.moved, None
        if moved is None:
            return None
        if isinstance(output, tuple):
            return (output[0] + moved.reshape(output[0].shape), *output[1:])
        return output + moved.reshape(output.shape)

    def on_mask(self, seen: torch.Tensor) -> torch.Tensor | None:
        self.count += 1
        return self.function(seen, self.site)

    def on_output(self, module: torch.nn.Module, args: Any, output: Any) -> Any:
        del module, args
        if self.tap.side == "pattern":
            if not isinstance(output, tuple) or len(output) < 2 or output[1] is None:
                raise SiteError(f"{self.site}: no attention weights were returned; run with attention('eager')")
            if self.value(output[1]) is not output[1]:
                raise SiteError(f"{self.site} is a copy and cannot be written; block attention with edit.knockout")
            return None
        if isinstance(output, tuple):
            new = self.value(output[0])
            return None if new is output[0] else (new, *output[1:])
        if not isinstance(output, torch.Tensor):
            tensor = output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0]
            if self.value(tensor) is not tensor:
                raise SiteError(f"{self.site}: the module returns {type(output).__name__}, which cannot be edited")
            return None
        new = self.value(output)
        return None if new is output else new

    def on_input(self, module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        del module
        key, tensor = _first_tensor(args, kwargs)
        new = self.value(tensor)
        if new is tensor:
            return None
        if self.tap.whole is not None:
            self.moved = new - tensor
        return ((new, *args[1:]), kwargs) if key is None else (args, {**kwargs, key: new})


def _first_tensor(args: Any, kwargs: Any) -> tuple[str | None, torch.Tensor]:
    """The residual that a module was called with: its first argument, or one of the usual names."""
    if args and isinstance(args[0], torch.Tensor):
        return None, args[0]
    for key in ("hidden_states", "x", "inputs_embeds"):
        if isinstance(kwargs.get(key), torch.Tensor):
            return key, kwargs[key]
    raise SiteError("a module was called without a tensor to read")


@contextmanager
def attached(hooks: Sequence[tuple[Site, Tap, HookFunction]]) -> Iterator[None]:
    """Attach hooks for the forwards inside the block; raise for any that did not fire.

    Hooks on one tap run in the given order, so a reading placed after an edit sees the edit.
    """
    firings, handles = [], []
    for site, tap, function in hooks:
        firing = _Firing(site, tap, function)
        firings.append(firing)
        if tap.whole is not None:  # before any reading of what the block gives
            handles.append(tap.whole.register_forward_hook(firing.on_whole, prepend=True))
        if tap.flat_in is not None:
            handles.append(tap.flat_in.register_forward_pre_hook(firing.on_block, with_kwargs=True))
        if tap.side == "mask":
            hook = mask_hook(tap.module, firing.on_mask)
            handles.append(tap.module.register_forward_pre_hook(hook, with_kwargs=True))
        elif tap.side == "input":
            handles.append(tap.module.register_forward_pre_hook(firing.on_input, with_kwargs=True))
        else:
            handles.append(tap.module.register_forward_hook(firing.on_output))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    silent = [str(firing.site) for firing in firings if firing.count == 0]
    if silent:
        raise SiteError(f"hooks that did not fire: {', '.join(silent[:5])}; the forward never reached these modules")
