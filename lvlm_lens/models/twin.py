"""The random-weight twin: the model itself with every weight tensor's entries in random order, for a while.

A probe on random features is above chance, so a curve counts only above its twin's.  Shuffling [own] draws each
tensor anew from its own values, so the twin's blocks mix as strongly as the model's; the family's initialiser would
give far smaller weights than training ends with, and a twin that is too easy to beat.

Two models need not fit on the device: the entries are put in order by a seeded permutation, in place, and put back by
its inverse, also when what happens in between fails.  A hash of every byte shows that the weights are what they were.
Tensors of more than 2^24 entries are shuffled in interleaved parts of at most that size (every k-th entry, k without
a common divisor with the number of entries, so each part is spread over all rows and columns); the memory beside the
model is that of one part.  The permutation depends on the seed and the weight's name only.

Offloaded weights are never on the device all at once and may lie in the checkpoint itself, which is not written to:
they are shuffled each time that their module loads them.  Codes of a quantiser have no entries to shuffle, so such a
model has no twin.
"""

from __future__ import annotations

import hashlib
import math
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import ModelError, NumericalError
from .weights import full_hash, offload_hooks, quantization

PART = 2**24
"""Most entries that are shuffled together: their order takes 128 MiB, and 64 MiB the entries in float32."""


@contextmanager
def shuffled_weights(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Inside the block the model's weights are in random order; after it they are what they were, bit for bit.

    Raises:
        ModelError: quantised weights.
        NumericalError: the weights are not what they were (something wrote to them inside the block).
    """
    method = quantization(model)
    if method is not None:
        raise ModelError(
            f"the weights are codes of {method}, and shuffled codes are no shuffled weights; load the model without "
            "quantisation for a random-weight twin, or measure without one (--no-twin)"
        )
    before = full_hash(model)
    done: list[tuple[torch.Tensor, int]] = []
    maps: list[tuple[Any, Any]] = []
    hooks = offload_hooks(model)
    first = _first_names(model)

    def undo() -> None:
        with _uninterrupted():
            for hook, original in maps:
                hook.weights_map = original
            while done:
                unshuffle(*done.pop())

    try:
        try:
            for name, parameter in model.named_parameters():
                if parameter.is_meta:
                    continue
                # an adapter's base has the twin that it has without the adapter
                for part, number in _parts(parameter, f"{seed}:{name.replace('.base_layer.', '.')}"):
                    with _uninterrupted():  # a part is shuffled and noted, or neither
                        shuffle(part, number)
                        done.append((part, number))
            for owner, hook in hooks.items():
                with _uninterrupted():
                    maps.append((hook, hook.weights_map))
                    hook.weights_map = _ShuffledMap(hook.weights_map, owner, first, seed)
            yield
        finally:
            undo()
    finally:  # a second Ctrl-C may come before the first undoing has begun
        undo()
    if full_hash(model) != before:
        raise NumericalError(
            "the weights are not what they were before the random twin: something wrote to them while they were "
            "shuffled; load the model again"
        )


def _parts(tensor: torch.Tensor, name: str) -> Iterator[tuple[torch.Tensor, int]]:
    """Views that together hold every entry once, each with the seed of its order."""
    flat = tensor.detach().view(-1) if tensor.is_contiguous() else None
    if flat is None:
        if tensor.numel() > PART or not _transposed(tensor):
            raise ModelError(f"weight {name.partition(':')[2]!r} is not contiguous, so it cannot be shuffled in place")
        flat = tensor.detach().T.view(-1)
    step = -(-flat.numel() // PART)
    while math.gcd(step, flat.numel()) > 1 and step > 1:
        step += 1
    for start in range(step):
        digest = hashlib.sha256(f"{name}:{start}".encode()).digest()
        yield flat[start::step], int.from_bytes(digest[:8], "little") >> 1


def _transposed(tensor: torch.Tensor) -> bool:
    return tensor.ndim == 2 and tensor.T.is_contiguous()


def _order(part: torch.Tensor, seed: int) -> torch.Tensor:
    # drawn on the CPU, so that the twin is the same on every device
    return torch.randperm(part.numel(), generator=torch.Generator().manual_seed(seed)).to(part.device)


def shuffle(part: torch.Tensor, seed: int) -> None:
    """Put the entries of a part into the order of ``seed``, in place."""
    with torch.no_grad():
        part.copy_(part[_order(part, seed)])


def unshuffle(part: torch.Tensor, seed: int) -> None:
    """Undo :func:`shuffle` with the same seed."""
    with torch.no_grad():
        part[_order(part, seed)] = part.clone()  # what stood at order[i] went to i


def _first_names(model: nn.Module) -> dict[str, str]:
    """Of weights that are tied, each name beside the first one: they have one twin, as they have one value."""
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    order = {name: number for number, (name, _) in enumerate(model.named_parameters(remove_duplicate=False))}
    first = {name: name for name in order}
    for one, other in tied.items():
        if one in order and other in order:
            early = min(one, other, key=order.__getitem__)
            first[one] = first[other] = early
    return first


class _ShuffledMap(Mapping[str, Any]):
    """Offloaded weights in random order, shuffled whenever one is asked for."""

    def __init__(self, weights: Mapping[str, Any], owner: str, first: Mapping[str, str], seed: int) -> None:
        self.weights, self.owner, self.first, self.seed = weights, owner, first, seed

    def __getitem__(self, key: str) -> Any:
        value = self.weights[key]
        name = self.first.get(f"{self.owner}.{key}" if self.owner else key)
        if name is None:  # a buffer
            return value
        value = value.clone()
        for part, number in _parts(value, f"{self.seed}:{name}"):
            shuffle(part, number)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done; signals reach the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[Any] = []
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda number, frame: waiting.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if waiting and callable(before):
            before(*waiting[0])


class Undone:
    """Stands where a model's parts were while its twin has them, and where a twin's were when it is undone."""

    def __init__(self, message: str) -> None:
        object.__setattr__(self, "_message", message)

    def __getattr__(self, name: str) -> Any:
        raise ModelError(self._message)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raise."""
        raise ModelError(self._message)
