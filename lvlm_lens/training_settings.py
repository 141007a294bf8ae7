"""How an adapter is trained: the one place of the names, defaults and meanings, of Python and of ``lvlm-lens train``.

It stands outside the room of the trainings so that the command line reads it without loading that room's libraries.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from .errors import UsageError, near_matches
from .settings import setting

Where = Literal["language", "projector", "vision", "all"]
WHERE: tuple[Where, ...] = ("language", "projector", "vision", "all")
"""Which part of the model an adapter sits in."""

CONTROLS = ("none", "benign_refusals", "shuffled", "text_only")
"""What the rows are turned into before training; see :mod:`lvlm_lens.train.controls`."""


@dataclass(frozen=True)
class Settings:
    """How to train; the command line's options by the same names.

    Attributes:
        where: part of the model that gets the adapter.
        blocks: only these blocks of that part, as ``8-15`` or ``3,4,-1`` (``None``: all of them).
        rank: of LoRA; alpha is twice the rank.
        steps: optimiser steps.
        rate: learning rate; ``None`` for the method's own.
        batch_size: rows per step.
        seed: of the adapter's first values, the order of rows, and everything drawn.
        control: see :data:`CONTROLS`.
        save_every: steps between two checkpoints: what a kill can lose.
        bf16: autocast to bfloat16; the adapter's weights stay float32.
    """

    where: Where = setting("language", "part of the model: language, projector, vision or all", metavar="PART")
    blocks: str | None = setting(None, "only these blocks of the part, e.g. 8-15 or 3,4,-1", "all", metavar="LIST")
    rank: int = setting(8, "rank of the LoRA adapter", metavar="R")
    steps: int = setting(300, "optimiser steps", metavar="N")
    rate: float | None = setting(None, "learning rate", "the method's own", metavar="LR")
    batch_size: int = setting(4, "rows per step", metavar="N")
    seed: int = setting(0, "seed of everything random")
    control: str = setting("none", "train on altered rows: benign_refusals, shuffled or text_only", metavar="NAME")
    save_every: int = setting(50, "steps between two checkpoints", metavar="N")
    bf16: bool = setting(False, "autocast to bfloat16", "no")

    def __post_init__(self) -> None:
        if self.where not in WHERE:
            raise UsageError(f"where is {self.where!r}; write one of {', '.join(WHERE)}")
        if self.control not in CONTROLS:
            raise UsageError(
                f"no control {self.control!r}{near_matches(self.control, CONTROLS)}; {', '.join(CONTROLS)}"
            )
        for name in ("rank", "steps", "batch_size", "save_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; give a whole number of at least 1")
        if self.rate is not None and not 0 < self.rate < 1:
            raise UsageError(f"rate is {self.rate}; give a learning rate above 0 and below 1")
        if self.blocks is not None and self.where in ("projector", "all"):
            raise UsageError(f"blocks are those of one stack: with --where {self.where} leave them out")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
