"""What a study of constructed models is run on; ``lvlm-lens selftest`` makes its options of this."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..settings import setting


@dataclass(frozen=True)
class StudySettings:
    """Size and place of a study.

    Attributes:
        models: number of constructed models.
        pairs: sample sizes, pairs of one harmful and one harmless item, rising; the smaller ones are the first pairs of
            the largest.
        seed: of the study; seeds below 1 were used while the locators were written.
        folder: where each trial is kept in a file of its own (``trials/0007.safetensors``) as soon as it is there, so
            that a study goes on where it was stopped; ``None`` keeps nothing.  More models continue the same folder.
    """

    models: int = setting(40, "constructed models", metavar="N")
    pairs: tuple[int, ...] = setting((50, 100, 200), "sample sizes in pairs", metavar="N[,N]")
    seed: int = setting(1, "seed of models and items")
    folder: Path | None = setting(
        None, "keep each model's trial there, and continue what is there", "nowhere", metavar="DIR"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", tuple(sorted({int(size) for size in self.pairs})))
        if self.models < 1 or not self.pairs or self.pairs[0] < 20:
            raise UsageError(
                f"{self.models} models of {list(self.pairs)} pairs; a study needs a model and at least 20 pairs"
            )
