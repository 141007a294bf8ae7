"""Asking systems: what each learns from, what it is asked, and the ledger of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..activations.loop import readable
from ..data import Sample
from ..data.limits import limited_rows
from ..data.splits import test_samples, train_and_test
from ..errors import DataError
from ..lens import LVLM
from ..progress import part
from .answers import Answer, AnswerLedger, collect_answers
from .cost import Cost, metered

NONE = "none"
"""The undefended model's name."""


class Asking:
    """One set of requests for many systems.

    The arguments are those of :func:`~.evaluation.evaluate`; ``learns``: whether any system learns from samples.

    Attributes:
        fit_on: what systems learn from; test: what they are asked; unread: why a sample cannot be learnt from.
    """

    def __init__(
        self,
        model: LVLM,
        data: Sequence[Sample],
        train: Sequence[Sample] | None,
        limit: int | None,
        train_limit: int | None,
        max_new_tokens: int,
        batch_size: int,
        folder: Path | str | None,
        seed: int,
        learns: bool,
    ) -> None:
        self.model, self.max_new_tokens, self.batch_size = model, max_new_tokens, batch_size
        self.folder = None if folder is None else Path(folder)
        self.fit_on, self.test = training_and_test(data, train, limit, train_limit, seed)
        self.unread: list[str] = []
        if learns:  # a request that cannot be asked is counted where it is asked; one that cannot be learnt from, here
            self.fit_on = readable(model, self.fit_on, self._note)
        self._weights = model.weights_hash()

    def _note(self, sample: Sample, error: Exception) -> None:
        self.unread.append(f"left out of the training part: {error}")

    def ledger(self, name: str, defense: Any | None) -> AnswerLedger:
        """The answers of a system so far."""
        head = {
            "model": self.model.name,
            "weights": self._weights,
            "system": name,
            "settings": "" if defense is None else repr(getattr(defense, "get_params", dict)()),
            "train": [sample.id for sample in self.fit_on] if defense is not None else [],
            "max_new_tokens": self.max_new_tokens,
        }
        return AnswerLedger(self.folder / f"answers-{name}.jsonl" if self.folder is not None else None, head)

    def complete(self, name: str, defense: Any | None) -> bool:
        """Whether every request has its answer in the ledger."""
        known = self.ledger(name, defense).answers
        return all(sample.id in known for sample in self.test)

    def ask(self, name: str, defense: Any | None) -> tuple[Any, list[Answer]]:
        """The fitted and guarded system (``defense`` is ``None`` for the undefended model), and all its answers."""
        with part(0.0, 0.3, f"learning from {len(self.fit_on)} samples"):
            system: Any = Undefended(self.model)
            if defense is not None:
                system = defense.fit(self.model, self.fit_on).guard(self.model)
        ledger = self.ledger(name, defense)
        with part(0.3, 0.7, f"answering {len(self.test)} requests"):
            return system, collect_answers(system, self.test, ledger, self.max_new_tokens, self.batch_size)


class Undefended:
    """The model with a meter, so that its cost is measured as the guards' is."""

    def __init__(self, model: LVLM) -> None:
        self.model, self.cost = model, Cost()
        self.flagged: dict[str, bool] = {}

    def generate(self, samples: Sequence[Sample], max_new_tokens: int = 32, batch_size: int = 32) -> list[str]:
        """One answer a sample."""
        with metered(self.model, self.cost, len(samples)):
            return self.model.generate(samples, max_new_tokens, batch_size)


def training_and_test(
    data: Sequence[Sample], train: Sequence[Sample] | None, limit: int | None, train_limit: int | None, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """The labelled samples to learn from and those to ask: see :mod:`lvlm_lens.data.splits`."""
    if train is None:
        fit_on, test = train_and_test(data, train_limit, limit, seed)
    else:
        fit_on = [train[row] for row in limited_rows(train, train_limit, seed)]
        test = test_samples(data, limit, seed)
    if len({s.harmful for s in test}) < 2:
        raise DataError(f"{len(test)} labelled test samples of one class; harmful and harmless ones are needed")
    return fit_on, test
