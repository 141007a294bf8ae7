"""Every number of the training."""

from __future__ import annotations

from dataclasses import dataclass, field

from training.mini.config import TuningStage


@dataclass(frozen=True)
class Phase:
    """A part of the training: up to ``end`` of its time, scenes of ``levels`` labels."""

    end: float
    levels: int
    told: int
    """Scenes a step whose thing is named in words."""
    shown: int
    """Scenes a step whose thing stands in the picture."""


@dataclass(frozen=True)
class DepthStage:
    """The one training: it goes on from the weights of ``mini``, by the clock, as the machine is shared."""

    phases: tuple[Phase, ...] = (Phase(0.25, 1, 10, 0), Phase(0.6, 2, 8, 0), Phase(1.0, 2, 3, 6))
    blocks: int = 8
    """So many of mini's blocks are kept, the first ones."""
    rate: float = 1e-3
    warmup: int = 50
    """Steps in which the rate rises."""
    decline: float = 0.65
    """Share of the time after which the rate falls, linearly to a fiftieth."""
    decay: float = 0.05
    replay_every: int = 4
    """Steps between two in which mini's own tuning is repeated."""
    replay: TuningStage = field(default_factory=lambda: TuningStage(0, 0.0, pictures=2, replay=4, harmful_share=0.5))
    replay_weight: float = 1.0
    pictures_per_thing: int = 16
    cards_per_thing: int = 2
    seed: int = 0
    log_every: int = 100

    @property
    def levels(self) -> int:
        """Labels between a request and a plan in the scenes that are measured."""
        return self.phases[-1].levels

    def phase(self, share: float) -> Phase:
        """The phase at a share of the time."""
        return next((phase for phase in self.phases if share <= phase.end), self.phases[-1])

    def rate_at(self, step: int, share: float) -> float:
        """Learning rate of a step at a share of the time."""
        falling = 1.0 if share < self.decline else max(0.02, (1 - share) / (1 - self.decline))
        return self.rate * min(1.0, step / self.warmup) * falling
