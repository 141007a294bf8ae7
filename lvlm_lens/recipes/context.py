"""What every recipe is given: a model, its data, and a way to ask that survives a stop.

The data of a recipe are the published files where they are (``--root``, or the environment variable
``LVLM_LENS_DATA``), a set named by the user, or a part of the embedded set that stands in and is called so in every
result.  Answers go through ledgers in the recipe's folder, so a stopped run asks nothing twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from ..data import Dataset, Sample
from ..data.cards import plain
from ..data.limits import limited_rows
from ..data.registry import DATA_ROOT, card, load_dataset, root_of
from ..defenses.base import Guarded
from ..errors import DataError, UsageError
from ..evaluate.answers import Answering, AnswerLedger, collect_answers
from ..evaluate.judges import EndpointJudge, TextModel
from ..lens import LVLM
from ..progress import doing, each


class NamedSet(Protocol):
    """A registered data set, or a part of it: :class:`~lvlm_lens.recipes.recipe.SetUse`."""

    @property
    def name(self) -> str:
        """As it is registered."""

    @property
    def subset(self) -> str | None:
        """A part of it."""


class Wanting(Protocol):
    """What of a :class:`~lvlm_lens.recipes.recipe.Recipe` says which data it takes."""

    @property
    def name(self) -> str:
        """The word on the command line."""

    @property
    def needs_pictures(self) -> bool:
        """Whether it cannot be run on a text-only model."""

    @property
    def sets(self) -> Sequence[NamedSet]:
        """Published data sets that it is measured on."""

    @property
    def stand_in(self) -> str:
        """What of the embedded set stands in for them, in words."""

    @property
    def take(self) -> Callable[[Dataset], Dataset]:
        """That part of the embedded set."""


@dataclass(frozen=True)
class Material:
    """A recipe's data: the samples, what they are called, and how far they are the paper's own.

    Attributes:
        stand_in: a part of the embedded set in place of the published files.
        own: one of the paper's own sets; whole: no limit was set.
    """

    data: Dataset
    name: str
    stand_in: bool
    own: bool
    whole: bool
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "stand_in": self.stand_in,
            "published_files": self.own,
            "whole": self.whole,
            "samples": len(self.data),
            "harmful": sum(sample.harmful == 1 for sample in self.data),
            "harmless": sum(sample.harmful == 0 for sample in self.data),
            "left_out": len(self.data.problems),
        }


@dataclass
class Context:
    """The setting of a run, the same for all recipes.

    Args:
        model: the model.
        root: folder of the published files; dataset: a set in place of a recipe's own, as
            :func:`~lvlm_lens.data.registry.load_dataset` takes it; columns: of a table, by name.
        limit: at most so many items a part (training, test); ``None`` for all.
        seed: of everything drawn.
        judge: reads answers where a paper's scoring wants a judge; ``None``: words.
        out: folder where ledgers and figures go; ``None`` keeps answers in memory.
        batch_size, max_new_tokens, replicates: rows per forward, longest answer, bootstrap replicates.
        weights: hash of the model's weights, computed where it is not given.
    """

    model: LVLM
    root: str | Path | None = None
    dataset: Any = None
    columns: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    seed: int = 0
    judge: TextModel | EndpointJudge | None = None
    out: Path | None = None
    batch_size: int = 32
    max_new_tokens: int = 32
    replicates: int = 1000
    weights: str = ""
    tell: Callable[[str], None] = field(default=doing)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 4:
            raise UsageError(f"limit is {self.limit}; a recipe needs at least 4 items")
        self.weights = self.weights or self.model.weights_hash()

    # -- data --------------------------------------------------------------------------------

    def load(self, recipe: Wanting) -> Material:
        """The recipe's data as far as they are there."""
        if recipe.needs_pictures and not self.model.takes_images:
            raise UsageError(f"recipe {recipe.name!r} works on pictures and model {self.model.name!r} takes text only")
        if self.dataset is not None:
            data = load_dataset(self.dataset, root=self.root, **dict(self.columns))  # type: ignore[arg-type]
            own = plain(data.name) in {plain(use.name) for use in recipe.sets}
            return self._material(data, data.name or "data of one's own", stand_in=False, own=own)
        root = self.root if self.root is not None else self._environment(recipe)
        if root is None:
            data = recipe.take(load_dataset("mini"))
            return self._material(data, f"mini, {recipe.stand_in}", stand_in=True, own=False)
        parts, absent = [], []
        for use in recipe.sets:
            folder = root_of(card(use.name), root)
            missing = card(use.name).missing(folder)
            if missing and missing[0] == card(use.name).files[0]:
                absent.append(f"{use.name}: {missing[0]} is not under {folder.name or folder}")
                continue
            parts.append((use.name, load_dataset(use.name, root=root, subset=use.subset)))
        if not parts:
            raise DataError(
                f"recipe {recipe.name!r} wants {' or '.join(dict.fromkeys(u.name for u in recipe.sets))} under "
                f"{root}, and finds none ({'; '.join(absent)}); `lvlm-lens datasets {recipe.sets[0].name}` says what "
                "to download, and without --root the embedded set stands in"
            )
        joined = parts[0][1] if len(recipe.sets) == 1 else _joined(parts)
        notes = [f"not there, left out: {line}" for line in absent]
        return self._material(joined, " + ".join(dict.fromkeys(n for n, _ in parts)), False, True, notes)

    def _environment(self, recipe: Wanting) -> str | None:
        """The folder named by the environment, where one of the recipe's sets lies in it."""
        named = os.environ.get(DATA_ROOT)
        if named is None:
            return None
        known = [card(use.name) for use in recipe.sets]
        return named if any(c.files[0] not in c.missing(root_of(c, named)) for c in known) else None

    def _material(self, data: Dataset, name: str, stand_in: bool, own: bool, notes: Sequence[str] = ()) -> Material:
        if not self.model.takes_images:
            data = Dataset([s.without_images() for s in data], data.name, data.problems, data.notes)
        if not len(data):
            raise DataError(f"{name} gave no usable sample ({len(data.problems)} left out)")
        return Material(data, name, stand_in, own, self.limit is None, (*notes, *data.notes))

    def some(self, samples: Sequence[Sample]) -> list[Sample]:
        """At most ``limit`` samples, whole groups at a time, both classes kept."""
        samples = list(samples)
        if self.limit is None or len(samples) <= self.limit:
            return samples
        return [samples[i] for i in limited_rows(samples, self.limit, self.seed)]

    # -- asking ------------------------------------------------------------------------------

    def ask(
        self, systems: Mapping[str, tuple[LVLM | Guarded | Answering, Sequence[Sample]]]
    ) -> tuple[list[int], dict[str, list[str]], list[str]]:
        """Put each system's samples to it; the lists are of one length, an item per row.

        Returns:
            Rows that every system answered, each system's answers on those rows, and a note for rows left out.
        """
        found = {}
        for name in each(list(systems), lambda name: f"{name}: {len(systems[name][1])} requests"):
            system, samples = systems[name]
            head = {"weights": self.weights, "system": name, "max_new_tokens": self.max_new_tokens, "seed": self.seed}
            path = self.out / f"answers-{plain(name)}.jsonl" if self.out is not None else None
            ledger = AnswerLedger(path, head)
            found[name] = collect_answers(system, samples, ledger, self.max_new_tokens, self.batch_size)
        sizes = {len(answers) for answers in found.values()}
        if len(sizes) != 1:
            raise UsageError(f"systems were asked different numbers of requests: {sorted(sizes)}")
        rows = [i for i in range(sizes.pop()) if not any(answers[i].error for answers in found.values())]
        lost = {i: a.error for answers in found.values() for i, a in enumerate(answers) if a.error}
        notes = [f"{len(lost)} request(s) had no answer, e.g. {next(iter(lost.values()))}"] if lost else []
        return rows, {name: [answers[i].text for i in rows] for name, answers in found.items()}, notes


@dataclass(frozen=True)
class Sampled:
    """A model that draws its answers instead of taking the best token, the same ones for the same seed."""

    model: LVLM
    seed: int

    def generate(self, samples: Sequence[Sample], max_new_tokens: int = 32, batch_size: int = 32) -> list[str]:
        """One drawn answer a sample."""
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.seed)
            return self.model.generate(samples, max_new_tokens, batch_size, do_sample=True)


def _joined(parts: Sequence[tuple[str, Dataset]]) -> Dataset:
    """Several sets as one, ids and groups bearing the set's name."""
    made = [
        replace(
            sample,
            id=f"{name}:{sample.id}",
            group=f"{name}:{sample.group or sample.id}",
            counterfactual=f"{name}:{sample.counterfactual}" if sample.counterfactual else None,
        )
        for name, data in parts
        for sample in data
    ]
    problems = [problem for _, data in parts for problem in data.problems]
    notes = [f"{name}: {note}" for name, data in parts for note in data.notes]
    return Dataset(made, "+".join(dict.fromkeys(name for name, _ in parts)), problems, notes)
