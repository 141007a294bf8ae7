"""One patch grid of a model over a data set: which pairs, which spans, and the grid's work, from words and numbers.

The command runs all of it; a worker opens the same thing and runs batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..activations.loop import OnError, readable
from ..causal.grid_options import GridOptions
from ..causal.patch_grid import GridWork
from ..config import SweepConfig
from ..data import Dataset, Pair
from ..errors import DataError
from ..lens import LVLM
from .inputs import claim_folder, left_out, load_inputs, without_broken
from .patching import behaving_pairs, drawn_pairs, spans_of
from .reading import gather_resumable

READING, SHARDS = "reading", "shards"
"""Folder of what the model did with each item, inside the grid's folder; and its shards."""
SCHEMA = "lvlm-lens/patch-reading/1"


@dataclass(frozen=True)
class PatchRun:
    """What is patched.

    Attributes:
        config: model, data, ``out`` (the grid's folder) and the most ``pairs``.
        asked: what :func:`~lvlm_lens.causal.patch_grid` takes; without positions (``()``) the spans of
            :func:`~.patching.spans_of`.  Its seed is the config's.
        all_pairs: also pairs whose members behave alike.
    """

    config: SweepConfig
    asked: GridOptions
    all_pairs: bool = False

    @property
    def folder(self) -> Path:
        """The grid's folder."""
        return self.config.folder

    def load(self) -> tuple[LVLM, Dataset]:
        """Model and data."""
        return load_inputs(self.config)

    def work(
        self, model: LVLM, data: Dataset, progress: Callable[[str, int, int], None] = lambda stage, done, total: None
    ) -> tuple[GridWork, Dataset]:
        """The grid's work, and the data without what cannot be read.

        Raises:
            DataError: no pair can be patched, with what was left out and how the pairs behave.
        """
        broken: dict[str, str] = {}
        on_error: OnError = lambda sample, error: broken.update({sample.id: str(error)})  # noqa: E731
        if self.all_pairs:
            kept = None if self.config.strict else on_error
            readable(model, data, kept, lambda done, total: progress("reading", done, total))
            data = without_broken(data, broken)
            able, counts = data.pairs(), "the data set has no matched pairs (column counterfactual)"
            able = [pair for pair in able if pair.swap == "image"] or able  # of one kind: their spans are not the same
        else:
            home = claim_folder(self.folder / READING, SCHEMA, self.config, model, data)
            evidence = gather_resumable(
                model, data, home.path / SHARDS, self.config, on_error,
                lambda done, total: progress("reading", done, total),
            )  # fmt: skip
            data = without_broken(data, broken)
            able, counts = behaving_pairs(data, evidence)
        if not able:
            hint = "" if self.all_pairs else "; --all-pairs patches also pairs whose members behave alike"
            raise DataError(f"{left_out(data, '; ')}{counts}{hint}")
        return self._grid(model, drawn_pairs(able, self.config.pairs, self.config.seed)), data

    def _grid(self, model: LVLM, pairs: list[Pair]) -> GridWork:
        spans = self.asked.positions or spans_of(model, pairs)[0]
        if isinstance(spans, (list, tuple)) and len(spans) == 1:
            spans = spans[0]
        asked = replace(self.asked, positions=spans, seed=self.config.seed)
        return GridWork(model, pairs, asked, self.folder)
