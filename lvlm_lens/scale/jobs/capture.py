"""Capturing into a store: a shard is a range of samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

from ...config import SweepConfig
from ..job import Opened


@dataclass(frozen=True)
class CaptureJob:
    """Shards of one activation store.

    Attributes:
        config: model, data and batch size.
        folder: of the store.
        sites, positions, logits, dtype: as for :func:`~lvlm_lens.activations.capture_to.capture_to`; ``dtype`` by name.
        token: names this run in the claims of a store at a remote address, so that the claim of a dead worker can be
            taken over at once by another of the run.
    """

    config: SweepConfig
    folder: str
    sites: tuple[str, ...]
    positions: str
    logits: bool = False
    dtype: str | None = None
    token: str = field(default_factory=lambda: uuid4().hex)
    title: str = "capturing"

    def finished(self) -> set[str]:
        """Shards with an entry in the store's ledger."""
        from ...storage.folder import Folder
        from ...storage.ledger import Ledger

        return {str(shard) for shard in Ledger(Folder(self.folder)).shards()}

    def open(self) -> Opened:
        """Load model and data; the first worker makes the store."""
        import torch

        from ...activations.capture_to import StoreJob
        from ...models.positions import Positions
        from ...stages.inputs import load_inputs
        from ...storage.ledger import Claims

        model, data = load_inputs(self.config, need_labels=False)
        kept = model.dtype if self.dtype is None else getattr(torch, self.dtype)
        on_error = None if self.config.strict else lambda sample, error: None  # the ledger names it
        batch = self.config.batch_size
        work = StoreJob(
            model, data, list(self.sites), Positions.parse(self.positions), self.logits, kept, batch, on_error
        )
        store = work.open_store(self.folder)
        store.claims = Claims(store.folder, self.token)

        def compute(shard: str) -> Literal["done", "busy"]:
            try:
                return "done" if work.run_shard(store, int(shard)) else "busy"
            finally:
                store.claims.release_all()

        return Opened([str(shard) for shard in range(store.layout.shards)], compute)
