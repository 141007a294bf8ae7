"""One planted case: what was asked, what the withdrawn rule and the present one answered, and the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...inference import wilson_bounds

DRAWS = 300
"""Draws of a case that asks for a level of 5 %."""


@dataclass(frozen=True)
class Share:
    """A count with its Wilson interval."""

    count: int
    n: int

    @property
    def value(self) -> float:
        """The share, NaN of nothing."""
        return self.count / self.n if self.n else float("nan")

    def __str__(self) -> str:
        if not self.n:
            return "-"
        low, high = wilson_bounds(self.count, self.n)
        return f"{100 * self.value:.0f} % [{100 * low:.0f}, {100 * high:.0f}] ({self.count}/{self.n})"


def share_of(flags: Sequence[bool] | np.ndarray) -> Share:
    """How many of the flags are true."""
    return Share(int(np.sum(np.asarray(flags, dtype=bool))), len(flags))


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        part: of the list of defects, e.g. ``order``; setting: what was planted; asked: what is counted.
        before, after: of the withdrawn and of the present rule; ``None`` where there was no rule.
        least, most: target for ``after``; ``None`` for no bound on that side.
        note: a number that explains, e.g. a bias in blocks.
    """

    part: str
    setting: str
    asked: str
    before: Share | None
    after: Share
    least: float | None = None
    most: float | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the share itself (not its interval) meets the target; ``None`` where the case only describes."""
        if self.least is None and self.most is None:
            return None
        above = self.least is None or self.after.value >= self.least - 1e-12
        return bool(above and (self.most is None or self.after.value <= self.most + 1e-12))

    @property
    def target(self) -> str:
        """The target in words."""
        if self.least is not None and self.most is not None:
            return f"{100 * self.least:.0f} to {100 * self.most:.0f} %"
        if self.most is not None:
            return f"at most {100 * self.most:.0f} %"
        return "" if self.least is None else f"at least {100 * self.least:.0f} %"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "reached": self.reached, "target": self.target}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Case:
        """Inverse of :meth:`to_dict`."""
        kept = {key: data[key] for key in cls.__dataclass_fields__}
        for key in ("before", "after"):
            kept[key] = None if kept[key] is None else Share(**kept[key])
        return cls(**kept)
