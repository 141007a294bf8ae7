"""A data set: a sequence of samples that knows its splits, its pairs and its problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

from ..errors import DataError
from .sample import Pair, Sample


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that was left out, and why: it is counted and listed, never lost silently."""

    record: str
    reason: str
    file: str = ""
    field: str = ""

    def __str__(self) -> str:
        place = ", ".join(part for part in (self.file, self.record, self.field) if part)
        return f"{place}: {self.reason}"


@dataclass(frozen=True, repr=False)
class Dataset(Sequence[Sample]):
    """An ordered collection of :class:`Sample` with unique ids.

    ``data[3]`` and ``data["id"]`` give a sample, ``data[:10]`` a smaller data set;
    ``data.train``, ``data.validation`` and ``data.test`` its splits; ``data.pairs()`` the matched
    pairs.  ``problems`` lists the records that could not be used.
    """

    samples: tuple[Sample, ...]
    name: str = ""
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    """Differences from the published counts, and other things a reader of results should know."""
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __init__(
        self,
        samples: Iterable[Sample],
        name: str = "",
        problems: Iterable[Problem] = (),
        notes: Iterable[str] = (),
    ) -> None:
        object.__setattr__(self, "samples", tuple(samples))
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "problems", tuple(problems))
        object.__setattr__(self, "notes", tuple(notes))
        index = {sample.id: position for position, sample in enumerate(self.samples)}
        if len(index) != len(self.samples):
            counts = Counter(sample.id for sample in self.samples)
            twice = [key for key, count in counts.items() if count > 1][:3]
            raise DataError(f"{len(self.samples) - len(index)} duplicate sample ids, e.g. {twice}; ids must be unique")
        object.__setattr__(self, "_index", index)

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        """Five lines: size, labels, what the samples look like, what was left out."""
        harmful, harmless = (sum(sample.harmful == value for sample in self) for value in (1, 0))
        pictures = sum(bool(sample.images) for sample in self)
        groups = len({sample.group or sample.id for sample in self})
        splits = ", ".join(f"{count} {name or 'without a name'}" for name, count in _counts(s.split for s in self))
        kinds = ", ".join(f"{count} {name}" for name, count in _counts(s.category or "none" for s in self)[:5])
        first = repr(self.samples[0].text[:60]) if self.samples else "-"
        lost = f"{len(self.problems)} left out" + (f", e.g. {self.problems[0]}"[:110] if self.problems else "")
        return "\n".join(
            [
                f"Dataset {self.name or '(no name)'}: {len(self)} samples, {groups} groups, {pictures} with a picture",
                f"labels: {harmful} harmful, {harmless} harmless, {len(self) - harmful - harmless} unknown; "
                f"{len(self.pairs())} matched pairs",
                f"splits: {splits or '-'}; categories: {kinds or '-'}",
                f"first: {first}",
                f"problems: {lost}; notes: {len(self.notes)}",
            ]
        )

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @overload
    def __getitem__(self, key: int | str) -> Sample: ...
    @overload
    def __getitem__(self, key: slice) -> Dataset: ...
    def __getitem__(self, key: int | str | slice) -> Sample | Dataset:
        if isinstance(key, str):
            return self.samples[self._index[key]]
        if isinstance(key, slice):
            return self._with(self.samples[key])
        return self.samples[key]

    def __contains__(self, key: object) -> bool:
        if isinstance(key, str):
            return key in self._index
        return key in self.samples

    def _with(self, samples: Iterable[Sample]) -> Dataset:
        return Dataset(samples, self.name, self.problems, self.notes)

    def filter(self, keep: Callable[[Sample], bool]) -> Dataset:
        """The samples for which ``keep`` is true, in order."""
        return self._with(sample for sample in self.samples if keep(sample))

    def split(self, name: str) -> Dataset:
        """The samples of one split; raises when the split is empty."""
        chosen = self.filter(lambda sample: sample.split == name)
        if not chosen:
            have = sorted({sample.split for sample in self.samples})
            raise DataError(f"data set {self.name!r} has no split {name!r}; it has {have}")
        return chosen

    @property
    def train(self) -> Dataset:
        """Split ``train``."""
        return self.split("train")

    @property
    def validation(self) -> Dataset:
        """Split ``validation``."""
        return self.split("validation")

    @property
    def test(self) -> Dataset:
        """Split ``test``."""
        return self.split("test")

    def pairs(self) -> list[Pair]:
        """Matched pairs: every harmful sample with its harmless counterfactual, in order.

        The pair differs in its image when the words are equal, else in its text.
        """
        found = []
        for sample in self.samples:
            other_id = sample.counterfactual
            if sample.harmful != 1 or other_id is None or other_id not in self._index:
                continue
            other = self.samples[self._index[other_id]]
            if other.harmful != 0:
                continue
            found.append(Pair(sample, other, "image" if sample.text == other.text else "text"))
        return found

    def summary(self) -> dict[str, object]:
        """Counts by split, quadrant and category, and the number of problems."""
        return {
            "name": self.name,
            "samples": len(self),
            "splits": dict(Counter(sample.split for sample in self)),
            "quadrants": dict(Counter(sample.quadrant for sample in self)),
            "categories": dict(Counter(sample.category for sample in self)),
            "problems": len(self.problems),
        }


def _counts(names: Iterable[str]) -> list[tuple[str, int]]:
    """Names with their counts, the most frequent first."""
    return Counter(names).most_common()
