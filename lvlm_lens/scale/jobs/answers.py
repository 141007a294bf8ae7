"""Asking defences: a shard is one system, the undefended model among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...config import SweepConfig
from ...errors import DataError
from ..job import Opened


@dataclass(frozen=True)
class AnswersJob:
    """Answers of every system, each in the ledger where :func:`~lvlm_lens.evaluate.evaluation.evaluate` looks for them.

    Attributes:
        config: model and data; folder: of the run.
        defenses: names with commas; limit, train_limit, max_new_tokens: as ``evaluate`` takes them.
    """

    config: SweepConfig
    folder: str
    defenses: str
    limit: int | None = None
    train_limit: int | None = None
    max_new_tokens: int = 32
    title: str = "answers"

    def finished(self) -> set[str]:
        """None: a ledger does not know how many answers it should have, and a worker sees at once that it is full."""
        return set()

    def open(self) -> Opened:
        """Load model and data, choose the same training and test parts as the evaluation."""
        from pathlib import Path

        from ...defenses.registry import make_defenses
        from ...evaluate.evaluation import NONE, Asking
        from ...stages.inputs import load_inputs

        model, data = load_inputs(self.config)
        defenses = {defense.name: defense for defense in make_defenses(self.defenses, model)}
        asking = Asking(
            model, data, None, self.limit, self.train_limit, self.max_new_tokens, self.config.batch_size,
            Path(self.folder) / "answers", self.config.seed, bool(defenses),
        )  # fmt: skip

        def compute(shard: str) -> Literal["done", "busy"]:
            defense = None if shard == NONE else defenses[shard]
            if not asking.complete(shard, defense):
                try:
                    asking.ask(shard, defense)
                except DataError:  # the evaluation meets it again and leaves this defence out by name
                    if defense is None:
                        raise
            return "done"

        return Opened([NONE, *defenses], compute)
