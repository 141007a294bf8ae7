"""The loop over a data set that every forward-only job shares.

Batches are made by :func:`~lvlm_lens.models.lvlm.batches`; a sample that cannot be encoded (a broken
picture, say) is handed to ``on_error`` and left out; running out of memory halves the batch and
the work goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from ..data import Sample
from ..errors import DataError, LensError, NumericalError
from ..models.encode import Encoded
from ..models.lvlm import LVLM, batches
from .features import FeatureCache

Progress = Callable[[int, int], None]
"""Called with (samples done, samples in all)."""
OnError = Callable[[Sample, LensError], None]
Result = TypeVar("Result")


def run_batches(
    model: LVLM,
    data: Sequence[Sample],
    work: Callable[[Encoded], Result],
    batch_size: int = 32,
    on_error: OnError | None = None,
    progress: Progress | None = None,
    features: FeatureCache | None = None,
) -> Iterator[tuple[list[int], Result]]:
    """Encode batches and yield ``(row numbers in data, work(encoded))`` for each.

    With ``features`` a picture of many prompts goes through the vision tower once.

    Raises:
        DataError: the data set is empty, no sample could be encoded, or one could not and there is no ``on_error``.
        NumericalError: a single sample does not fit into memory.
    """
    if not len(data):
        raise DataError("the data set is empty; there is nothing to run")
    pending = list(batches(data, batch_size))
    done = used = 0
    while pending:
        batch = pending.pop(0)
        encoded, good = encode_readable(model, data, batch, on_error)
        done += len(batch) - len(good)
        if encoded is None:
            continue
        try:
            result = work(encoded if features is None else features.apply(encoded))
        except torch.OutOfMemoryError:
            if len(good) == 1:
                raise NumericalError(
                    f"out of memory with a single sample ({data[good[0]].id!r}); use a smaller dtype or device_map"
                ) from None
            torch.cuda.empty_cache()
            half = len(good) // 2
            pending[:0] = [good[:half], good[half:]]
            continue
        yield good, result
        done += len(good)
        used += len(good)
        if progress is not None:
            progress(done, len(data))
    if not used:
        raise DataError(f"none of the {len(data)} samples could be encoded")


def encode_readable(
    model: LVLM, data: Sequence[Sample], batch: list[int], on_error: OnError | None
) -> tuple[Encoded | None, list[int]]:
    """Encode a batch; with ``on_error``, find the samples that cannot be and go on without them."""
    try:
        return model.encode([data[i] for i in batch]), batch
    except DataError:
        if on_error is None:
            raise
    good = []
    for number in batch:
        try:
            model.encode(data[number])
            good.append(number)
        except DataError as error:
            on_error(data[number], error)
    return (model.encode([data[i] for i in good]) if good else None), good
