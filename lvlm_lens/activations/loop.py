"""The loop over a data set that every forward-only job shares.

Batches are made by :func:`~lvlm_lens.models.batching.batches`; a sample that cannot be encoded (a broken
picture, say) is handed to ``on_error`` and left out; running out of memory halves the batch and
the work goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from ..data import Sample
from ..errors import DataError, LensError
from ..models.batching import batches, halves, out_of_memory
from ..models.encode import Encoded
from ..models.loaded import LoadedModel
from ..progress import step
from .features import FeatureCache

Progress = Callable[[int, int], None]
"""Called with (samples done, samples in all)."""
OnError = Callable[[Sample, LensError], None]
Result = TypeVar("Result")


def run_batches(
    model: LoadedModel,
    data: Sequence[Sample],
    work: Callable[[Encoded], Result],
    batch_size: int = 32,
    on_error: OnError | None = None,
    progress: Progress | None = None,
    features: FeatureCache | None = None,
    prepared: Iterable[list[int]] | None = None,
) -> Iterator[tuple[list[int], Result]]:
    """Encode batches and yield ``(row numbers in data, work(encoded))`` for each.

    With ``features`` a picture of many prompts goes through the vision tower once.  ``prepared`` are batches in place
    of those of :func:`~lvlm_lens.models.batching.batches`.

    Raises:
        DataError: the data set is empty, no sample could be encoded, or one could not and there is no ``on_error``.
        NumericalError: a single sample does not fit into memory.
    """
    if not len(data):
        raise DataError("the data set is empty; there is nothing to run")
    pending = list(batches(data, batch_size) if prepared is None else prepared)
    done = used = 0
    errors: list[LensError] = []

    def note(sample: Sample, error: LensError) -> None:
        errors.append(error)
        assert on_error is not None
        on_error(sample, error)

    while pending:
        batch = pending.pop(0)
        encoded, good = encode_readable(model, data, batch, note if on_error is not None else None)
        done += len(batch) - len(good)
        if encoded is None:
            continue
        try:
            result = work(encoded if features is None else features.apply(encoded))
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            pending[:0] = halves(good, data)
            continue
        yield good, result
        done += len(good)
        used += len(good)
        step(done, len(data))
        if progress is not None:
            progress(done, len(data))
    if not used:
        raise none_readable(errors, len(data))


def encode_readable(
    model: LoadedModel, data: Sequence[Sample], batch: list[int], on_error: OnError | None
) -> tuple[Encoded | None, list[int]]:
    """Encode a batch; with ``on_error``, find the samples that cannot be and go on without them.

    Without it the first sample that cannot be encoded raises its own error, which names it.
    """
    try:
        return model.encode([data[i] for i in batch]), batch
    except LensError:
        if len(batch) == 1 and on_error is None:
            raise
    good = []
    for number in batch:
        try:
            model.encode(data[number])
            good.append(number)
        except LensError as error:
            if on_error is None:
                raise
            on_error(data[number], error)
    return (model.encode([data[i] for i in good]) if good else None), good


def none_readable(errors: Sequence[LensError], total: int) -> LensError:
    """The error of a run in which no sample could be encoded: of the samples' own kind where they agree."""
    kinds = {type(error) for error in errors}
    kind = kinds.pop() if len(kinds) == 1 else DataError
    return kind(f"none of the {total} samples could be encoded: {first_reasons(map(str, errors))}")


def first_reasons(reasons: Iterable[str], most: int = 3) -> str:
    """The first different reasons on one line, and how many more there are."""
    seen = list(dict.fromkeys(reasons))
    more = f"; and {len(seen) - most} more" if len(seen) > most else ""
    return "; ".join(seen[:most]) + more


def readable(
    model: LoadedModel, data: Sequence[Sample], on_error: OnError | None = None, progress: Progress | None = None
) -> list[Sample]:
    """The samples that the model's processor can encode; the others go to ``on_error``, or raise without it."""
    good = []
    for number, sample in enumerate(data):
        _, one = encode_readable(model, data, [number], on_error)
        good += [sample] if one else []
        step(number + 1, len(data))
        if progress is not None:
            progress(number + 1, len(data))
    return good
