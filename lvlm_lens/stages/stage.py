"""What every stage of a sweep is: it says its cost, runs, draws, and sums up.

A sweep is a loop over stages (:func:`lvlm_lens.stages.stages`), and its estimate is the sum of their costs.  Every
stage keeps what it did in its own part of the run folder and continues there, so the same command again begins where
the last one ended.  A new stage is one file with one class, and its name in that function.
"""

from __future__ import annotations

import gc
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from ..activations.capture import gather_positions
from ..config import SweepConfig
from ..data import Dataset, Pair, Sample
from ..errors import LensError, NumericalError
from ..lens import LVLM
from ..machine import give_back
from ..measures.items import joint_items
from ..models.batching import out_of_memory
from ..models.loading import BACKBONES
from ..models.positions import Positions
from ..stats.curve import Curve
from .inputs import without_broken
from .summary import Block
from .work import Work

Progress = Callable[[str, int, int], None]
"""Called with (what is done, how many, of how many)."""


def silent(what: str, done: int, total: int) -> None:
    """A progress callback that does nothing."""


@dataclass
class Run:
    """What every stage of a run is given.

    Attributes:
        model, data: as loaded; folder: of the run; settings: all of them.
        seed: of everything drawn; batch_size: rows per forward, halved where memory runs out; progress: callback.
        found: what each stage found, by its name, for the stages after it.
        curves: every curve of the run by name, with its draws.
        broken: samples that could not be read, with the reason; notes: for the reader.
        timings: seconds; processor: of these, spent computing (all threads of the process).
    """

    model: LVLM
    data: Dataset
    folder: Path
    settings: SweepConfig
    seed: int = 0
    batch_size: int = 32
    progress: Progress = silent
    found: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)

    @property
    def read(self) -> Dataset:
        """The samples that the model could read."""
        return without_broken(self.data, self.broken)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the seconds inside under ``name``, without those that were counted inside under another."""
        clocks = ((time.perf_counter, self.timings), (time.process_time, self.processor))
        before = [(clock(), sum(counted.values())) for clock, counted in clocks]
        yield
        for (clock, counted), (start, already) in zip(clocks, before, strict=True):
            spent = clock() - start - (sum(counted.values()) - already)
            counted[name] = counted.get(name, 0.0) + spent


@dataclass(frozen=True)
class Plan:
    """What a stage's cost depends on, before anything is run.

    Attributes:
        settings: of the sweep; model: its structure, which may have no weights; data: the samples.
        kept: how many blocks are read.
    """

    settings: SweepConfig
    model: LVLM
    data: Dataset
    kept: int

    @cached_property
    def labelled(self) -> list[Sample]:
        """Samples with a joint label."""
        return [sample for sample in self.data if sample.harmful is not None]

    @cached_property
    def in_words(self) -> int:
        """How many samples are also read as words only; 0 where that shows nothing."""
        worded = [sample for sample in self.labelled if sample.images and sample.text_only is not None]
        return len(worded) if len({sample.harmful for sample in worded}) == 2 else 0

    @cached_property
    def share_of_words(self) -> float:
        """How long a prompt is without its picture, as a share of the same prompt with it (of a few)."""
        few = [s for s in self.labelled if s.images and s.text_only is not None][:: max(1, self.in_words // 4)][:4]
        lengths = [
            [len(self.model.encoder([sample]).layouts[0].attended) for sample in (shown, shown.without_images())]
            for shown in few
        ]
        return sum(words for _, words in lengths) / sum(whole for whole, _ in lengths)

    def share_in_parts(self, samples: Sequence[Sample]) -> float:
        """Tokens that a reading puts through the blocks, as a share of those of whole prompts (of one batch)."""
        batches = self.model.beginnings.batches(samples, self.settings.batch_size)
        try:
            encoded = self.model.encoder([samples[row] for row in batches[len(batches) // 2]])
            first = gather_positions(encoded, Positions.parse(self.settings.positions))[0].min(1).values
        except LensError:  # what cannot be encoded is told when it is read
            return 1.0
        split = self.model.beginnings.worthwhile(encoded, first.tolist())
        return 1.0 if split is None else split.tokens / encoded.inputs["input_ids"].numel()

    @property
    def backbone(self) -> bool:
        """Whether a language-only backbone reads them too."""
        return self.settings.backbone is not None or self.settings.model in BACKBONES

    @cached_property
    def joint(self) -> bool:
        """Whether some samples need picture and words together."""
        return bool(joint_items(self.labelled).any())

    @cached_property
    def pairs(self) -> list[Pair]:
        """Matched pairs, those that differ in their picture where there are any."""
        pairs = self.data.pairs()
        return [pair for pair in pairs if pair.swap == "image"] or pairs


class Stage(ABC):
    """One stage.

    ``name`` is its key in :attr:`Run.found` and in the timings; ``parts`` are the parts of ``result.json`` that it
    writes.
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]] = ()

    def asked(self, settings: SweepConfig) -> bool:
        """Whether the settings ask for it."""
        return True

    @abstractmethod
    def cost(self, plan: Plan) -> Mapping[str, Work]:
        """Its work by line of the estimate; figures under ``figures``."""

    @abstractmethod
    def run(self, run: Run) -> Mapping[str, Any]:
        """Do it, or what is left of it, and return its parts of ``result.json`` as plain values."""

    def absent(self) -> Mapping[str, Any]:
        """Its parts of ``result.json`` where it was not asked for."""
        return {part: {"done": False, "reason": "not asked for"} for part in self.parts}

    def figures(self, run: Run) -> list[dict[str, str]]:
        """Draw what it found: name, files and caption of each figure."""
        return []

    def summary(self, record: Mapping[str, Any]) -> list[Block]:
        """What it found, from the record of the whole result."""
        return []


def run_stage(stage: Stage, run: Run) -> Mapping[str, Any]:
    """Run a stage; where memory runs out, halve the batch, say so, and go on from what the stage has kept."""
    if not stage.asked(run.settings):
        return stage.absent()
    while True:
        try:
            with run.timed(stage.name), halvings_noted(run.notes, stage.name):
                parts = stage.run(run)
            gc.collect()  # recordings stand in circles, which nothing else frees in time
            give_back()
            return parts
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if run.batch_size == 1:
                raise NumericalError(
                    f"{stage.name}: out of memory with one row per forward; use a smaller dtype, --device-map auto or "
                    "--quantize"
                ) from error
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            run.notes.append(f"{stage.name}: out of memory with {run.batch_size} rows per forward, gone on with "
                             f"{run.batch_size // 2}")  # fmt: skip
            run.batch_size //= 2


class _Notes(logging.Handler):
    def __init__(self, notes: list[str], stage: str) -> None:
        super().__init__(logging.WARNING)
        self.notes, self.stage = notes, stage

    def emit(self, record: logging.LogRecord) -> None:
        note = f"{self.stage}: {record.getMessage()}"
        if note not in self.notes:
            self.notes.append(note)


@contextmanager
def halvings_noted(notes: list[str], stage: str) -> Iterator[None]:
    """Batches that are halved inside, where a loop does it by itself, are noted too."""
    log = logging.getLogger("lvlm_lens.memory")
    handler = _Notes(notes, stage)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
