"""Batches of samples that fit into memory: rows of one kind together, a batch that does not fit halved."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch

from ..data import Sample
from ..errors import NumericalError, UsageError
from ..progress import step

Result = TypeVar("Result")
_LOG = logging.getLogger("lvlm_lens.memory")


def batches(samples: Sequence[Sample], size: int) -> Iterator[list[int]]:
    """Indices in batches, rows with and without pictures apart, similar lengths of words together."""
    order = sorted(range(len(samples)), key=lambda i: (len(samples[i].images), len(samples[i].text), i))
    return in_order(samples, order, size)


def in_order(samples: Sequence[Sample], order: Sequence[int], size: int) -> Iterator[list[int]]:
    """Batches of the rows in ``order``, in which rows with equally many pictures stand together."""
    if size < 1:
        raise UsageError(f"batch size is {size}; it must be at least 1")
    start = 0
    while start < len(order):
        kind = len(samples[order[start]].images)
        stop = start
        while stop < len(order) and stop - start < size and len(samples[order[stop]].images) == kind:
            stop += 1
        yield list(order[start:stop])
        start = stop


def in_batches(
    samples: Sequence[Sample],
    size: int,
    work: Callable[[list[int]], Result],
    prepared: Iterable[list[int]] | None = None,
    least: int = 1,
) -> Iterator[tuple[list[int], Result]]:
    """``(rows, work(rows))`` for batches of samples; one that does not fit into memory is halved and tried again.

    Args:
        samples: in any order; size: rows per batch.
        work: called with row numbers.
        prepared: batches in place of those of :func:`batches`.
        least: rows below which no batch is cut.
    """
    pending = list(batches(samples, size) if prepared is None else prepared)
    total, done = sum(map(len, pending)), 0
    while pending:
        batch = pending.pop(0)
        try:
            result = work(batch)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            pending[:0] = halves(batch, samples, least)
            continue
        done += len(batch)
        step(done, total)
        yield batch, result


def out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch got no memory: an error of its own kind on a GPU, its allocator's plain one on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def halves(batch: Sequence[int], samples: Sequence[Sample], least: int = 1) -> list[list[int]]:
    """The two halves of a batch that did not fit into memory; raises where a half would have fewer rows than least."""
    if len(batch) < 2 * least:
        few = "a single sample" if len(batch) == 1 else f"{len(batch)} samples"
        raise NumericalError(f"out of memory with {few} ({samples[batch[0]].id!r}); use a smaller dtype or device_map")
    torch.cuda.empty_cache()
    half = len(batch) // 2
    _LOG.warning("out of memory with %d rows per forward, gone on with %d", len(batch), half)
    return [list(batch[:half]), list(batch[half:])]
