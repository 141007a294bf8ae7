"""A model with an adapter against the same model without it: the same sweep twice, and the differences, paired.

Both sweeps have the same data, folds, shuffles and bootstrap draws, so replicate r of one belongs to replicate r of the
other (:mod:`lvlm_lens.comparison`).  They run one after the other, so one model is in memory at a time; each continues
where it was stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .comparison import Comparison, compare_runs, write_comparison
from .config import SweepConfig
from .errors import UsageError
from .sweep import SweepResult, Tell, run_sweep


@dataclass(frozen=True)
class AgainstBase:
    """Both sweeps and what lies between them.

    Attributes:
        base, adapted: the sweeps, in ``base/`` and ``adapter/`` of the folder.
        comparison: adapted minus base, by role; in ``comparison/``.
        folder: of all three.
    """

    base: SweepResult
    adapted: SweepResult
    comparison: Comparison
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {
            "base": self.base.data,
            "adapter": self.adapted.data,
            "comparison": self.comparison.to_dict(),
        }


def both_configs(config: SweepConfig) -> tuple[SweepConfig, SweepConfig]:
    """The sweep without the adapter and the one with it, in folders beside each other.

    Raises :class:`UsageError` where ``config`` names no adapter.
    """
    if config.adapter is None:
        raise UsageError("--against-base compares a model with its adapter and without it; give --adapter DIR too")
    folder = config.folder
    return replace(config, adapter=None, out=str(folder / "base")), replace(config, out=str(folder / "adapter"))


def sweep_against_base(
    config: SweepConfig, progress: Callable[[str], Tell] | None = None, command: list[str] | None = None
) -> AgainstBase:
    """Run (or continue) both sweeps and test their differences.

    Args:
        config: the sweep with its adapter; ``out`` becomes the folder of both.
        progress: makes the progress callback of each sweep, called with ``base`` and ``adapter``.
        command: the words of the command line, for the record.
    """
    made = []
    for name, one in zip(("base", "adapter"), both_configs(config), strict=True):
        made.append(run_sweep(one, None if progress is None else progress(name), command))
    comparison = compare_runs([result.folder for result in made])
    write_comparison(comparison, config.folder / "comparison")
    return AgainstBase(made[0], made[1], comparison, config.folder)
