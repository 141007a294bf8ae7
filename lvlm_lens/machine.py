"""What this machine has and how fast it is, measured in a few seconds with nothing of the model but its shapes.

A forward is timed as the matrix products of its linear layers, at the width, the number type and the number of rows
that the run will use, plus what stands between the products (norms, rotations, activations, sums), plus a measured
cost a module (on a small model the calls cost more than the arithmetic), plus attention.  :mod:`.speed` times probes
and figures.

On one thread of the CPU the clock is that of the process, so that other work on the machine does not count: the
estimate is that of a free machine.  With several threads, or a GPU, it is the clock on the wall.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import torch
from torch import nn

_ENOUGH = 0.05
"""Seconds that a timing should last at least."""


def clock_name(device: str = "cpu") -> str:
    """``process`` on one thread of the CPU, ``wall`` elsewhere: what :func:`clock` goes by."""
    return "process" if not device.startswith("cuda") and torch.get_num_threads() == 1 else "wall"


def clock(device: str = "cpu") -> float:
    """Seconds since some moment, for differences."""
    return time.process_time() if clock_name(device) == "process" else time.perf_counter()


def seconds(work: Callable[[], object], device: str = "cpu", enough: float = _ENOUGH) -> float:
    """Seconds of one call, the first one (which allocates) not counted."""
    work()
    count, spent = 0, 0.0
    while spent < enough and count < 64:
        _wait(device)
        start = clock(device)
        work()
        _wait(device)
        spent += clock(device) - start
        count += 1
    return spent / count


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def linear_seconds(shape: tuple[int, int], rows: int, device: str, dtype: torch.dtype) -> float:
    """Seconds of ``rows x in -> rows x out``: measured on as many rows as take a moment, the rest in proportion."""
    weight = torch.randn(shape, device=device).to(dtype)
    tried = min(rows, 8)
    while True:
        x = torch.randn(tried, shape[1], device=device).to(dtype)
        spent = seconds(lambda x=x: torch.nn.functional.linear(x, weight), device)  # type: ignore[misc]
        if tried >= rows or spent > _ENOUGH:
            return spent * rows / tried
        tried = min(rows, tried * 8)


def forward_seconds(
    parts: list[tuple[nn.Module, int, int]], device: str, dtype: torch.dtype, heads: int = 0, head_dim: int = 0
) -> float:
    """Seconds of one forward through modules on the meta device.

    Args:
        parts: ``(module, rows, positions)``: how many rows (batch times positions) go through it, and how many
            positions attend to each other.
        device, dtype: of the run.
        heads, head_dim: of attention in the decoder.
    """
    call, value = _call_seconds(device), _value_seconds(device, dtype)
    shapes: Counter[tuple[tuple[int, int], int]] = Counter()
    queries: Counter[int] = Counter()
    total = 0.0
    for module, rows, positions in parts:
        modules = [m for m in module.modules() if not list(m.children())]
        total += 2.5 * call * len(modules)  # a module does more than one operation, and attention has no module
        for leaf in modules:
            weight = getattr(leaf, "weight", None)
            if weight is not None and weight.ndim == 2 and not isinstance(leaf, nn.Embedding):
                shapes[(tuple(weight.shape), rows)] += 1
                total += _AFTER_LINEAR * value * rows * weight.shape[0]
            elif weight is not None and weight.ndim == 1:
                total += _IN_NORM * value * rows * len(weight)
        if heads:
            queries[positions] += rows
    for (shape, rows), count in shapes.items():
        total += count * linear_seconds(shape, rows, device, dtype)
    for positions, rows in queries.items():
        total += rows * _query_seconds(heads, positions, head_dim, device, dtype)
    return total


_AFTER_LINEAR = 2.0
"""Operations on each number that a linear layer gives: it is rotated, laid out anew, activated, multiplied, added."""
_IN_NORM = 5.0
"""Operations on each number that a norm reads."""


def _value_seconds(device: str, dtype: torch.dtype) -> float:
    """Seconds a number of an operation on single numbers, on more of them than the nearest cache holds."""
    x = torch.randn(2**19, device=device).to(dtype)
    return seconds(lambda: x * x, device, 0.02) / x.numel()


def _call_seconds(device: str) -> float:
    """Seconds of one small operation inside a module call."""
    norm, x = nn.LayerNorm(64, device=device), torch.randn(1, 64, device=device)
    return seconds(lambda: norm(x), device, 0.02)


def _query_seconds(heads: int, positions: int, head_dim: int, device: str, dtype: torch.dtype) -> float:
    """Seconds of attention for one position of one row, among so many."""
    x = torch.randn(1, heads, positions, head_dim, device=device).to(dtype)
    mask = torch.ones(1, 1, positions, positions, device=device, dtype=torch.bool).tril()
    attend = torch.nn.functional.scaled_dot_product_attention
    return seconds(lambda: attend(x, x, x, attn_mask=mask), device, 0.02) / positions


def resident_bytes() -> int:
    """Bytes of this process in memory now (its peak where the system does not say)."""
    import os
    import resource
    from pathlib import Path

    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def give_back() -> None:
    """Return freed memory to the system: C's allocator keeps what a forward's states took, which is hundreds of MiB
    at the width of a 7B model, and the next stage would stand beside it.  Nothing happens without glibc.
    """
    import ctypes

    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return


def memory_bytes(device: str) -> int:
    """Bytes of the device, or of the machine where the device is its processor."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory)
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
