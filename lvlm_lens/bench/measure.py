"""Clocks and counters of a benchmark: seconds, FLOPs, operator launches, peak memory, on CPU or GPU."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..machine import clock

Result = TypeVar("Result")


def _synchronize() -> None:
    # not is_available: on a machine with an idle GPU, work on the CPU is the CPU's
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def seconds(work: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds of one call, and what it returned: of the process on one thread of the CPU, else on the wall's clock."""
    device = "cuda" if torch.cuda.is_initialized() else "cpu"
    _synchronize()
    start = clock(device)
    result = work()
    _synchronize()
    return clock(device) - start, result


def _attention_flops(query: Any, key: Any, *rest: Any, **kwargs: Any) -> int:
    batch, heads, queries, width = query
    return int(4 * batch * heads * queries * key[-2] * width)


_UNCOUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
"""The CPU's attention kernel, which torch's counter does not know (2.13) and would count as nothing."""


class _Launches(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Cost:
    """What one call needs, apart from time."""

    flops: int
    launches: int
    peak_bytes: int | None


def cost(work: Callable[[], Any]) -> Cost:
    """FLOPs by ``torch.utils.flop_counter``, ATen operators that are not views, and peak bytes above the start.

    Attention is counted as the kernel sees it, masked products included.  Peak memory is the allocator's on a GPU
    and the resident set's high-water mark on Linux, ``None`` elsewhere.
    """
    gc.collect()
    peak = _peak(work)
    launches = _Launches()
    with FlopCounterMode(display=False, custom_mapping=_UNCOUNTED) as counter:
        work()
    with launches:
        work()
    return Cost(int(counter.get_total_flops()), launches.count, peak)


def _peak(work: Callable[[], Any]) -> int | None:
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return int(torch.cuda.max_memory_allocated() - before)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps freed memory, which would hide what is used
    if trim is None:
        work()
        return None
    trim(0)
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    try:
        reset.write_text("5")
    except OSError:
        work()
        return None
    before = _resident(status, "VmRSS")
    work()
    return max(0, _resident(status, "VmHWM") - before)


def _resident(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])
