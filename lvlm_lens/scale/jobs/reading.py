"""Reading evidence for a sweep: a shard is a range of samples, read by one of the sweep's four readers."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...config import SweepConfig
from ...errors import ModelError
from ...storage.pieces import Pieces
from ..job import Opened

if TYPE_CHECKING:
    from ...lens import LVLM

_held = ExitStack()
"""Keeps the twin's weights shuffled for as long as the worker's process lives."""
Reader = Literal["model", "twin", "lvlm_in_words", "backbone"]


@dataclass(frozen=True)
class ReadingJob:
    """Shards of what one reader reads.

    Attributes:
        config: model and data.
        folder: that is claimed for the run; place: of the shards, inside it.
        schema: of the result the folder belongs to.
        reader: the model, its random twin, the model on the items said in words, or the language-only backbone on them.
    """

    config: SweepConfig
    folder: str
    place: str
    schema: str
    reader: Reader = "model"

    @classmethod
    def of_sweep(cls, config: SweepConfig, folder: str, reader: Reader) -> ReadingJob:
        """What a sweep reads."""
        from ...stages.records import SCHEMA

        return cls(config, folder, f"activations/{reader}", SCHEMA, reader)

    @classmethod
    def of_patch(cls, config: SweepConfig, folder: str) -> ReadingJob:
        """What ``lvlm-lens patch`` reads to find its pairs."""
        from ...stages.patch_run import READING, SCHEMA, SHARDS

        return cls(config, str(Path(folder) / READING), SHARDS, SCHEMA)

    @property
    def title(self) -> str:
        """What the progress bar says."""
        return f"reading the {self.reader}"

    @property
    def _place(self) -> Path:
        return Path(self.folder) / self.place

    def finished(self) -> set[str]:
        """Shards that are there."""
        return Pieces(self._place).names()

    def open(self) -> Opened:
        """Load what reads, make the run folder this run's own."""
        from ...stages.inputs import claim_folder, load_inputs
        from ...stages.reading import IN_WORDS, load_backbone, read_shard, said_in_words, shards_of

        model, data = load_inputs(self.config)
        claim_folder(Path(self.folder), self.schema, self.config, model, data)
        items = data
        reader: LVLM | None = model
        if self.reader in IN_WORDS:
            items = said_in_words(data)
            if len({sample.harmful for sample in items}) < 2:
                items = items[:0]
        if self.reader == "backbone" and len(items):
            device = str(model.device)
            del model, reader  # one model on the device at a time
            gc.collect()  # its modules and hooks name one another
            found = load_backbone(self.config, device)
            items, reader = (items, found) if found is not None else (items[:0], None)
        elif self.reader == "twin":
            shuffled = model.random_twin(self.config.seed)
            try:
                reader = _held.enter_context(shuffled)
            except ModelError:  # quantised weights have none; the run itself says so
                items = items[:0]

        def compute(shard: str) -> Literal["done", "busy"]:
            assert reader is not None, "without a backbone there is no shard"
            read_shard(reader, items, self._place, self.config, int(shard), lens=self.reader not in IN_WORDS)
            return "done"

        return Opened([f"{start:07d}" for start in shards_of(items)], compute)
