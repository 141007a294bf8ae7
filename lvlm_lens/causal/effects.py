"""What edits do to a metric, sample by sample: the frame that knockout, directions and ablations share.

A condition is a name and a function from an encoded batch to edits.  Each batch is run once untouched and once for
each condition, as plain forwards with hooks; values stand beside their baseline, and changes come with a bootstrap
interval over groups and a sign-flip p-value, adjusted over all conditions by step-down max-T.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..activations.capture import edited_logits
from ..activations.features import FeatureCache
from ..activations.loop import Progress, run_batches
from ..data import Sample
from ..errors import NumericalError, UsageError
from ..interventions.edit import Edit
from ..lens import LVLM
from ..models.encode import Encoded
from ..stats.groups import bootstrap_mean
from ..stats.maxt import max_t
from .metrics import LogitsFunction, Metric, make_metric, numbers

if TYPE_CHECKING:
    import pandas as pd

MakeEdits = Callable[[Encoded], Sequence[Edit]]


@dataclass
class Effects:
    """A metric under several conditions.

    Attributes:
        names: conditions, in order.
        baseline: the untouched metric, ``[sample]``; values: ``[condition, sample]``.
        ids, groups: of the samples; metric: its name.
    """

    names: tuple[str, ...]
    baseline: np.ndarray = field(repr=False)
    values: np.ndarray = field(repr=False)
    ids: tuple[str, ...] = field(repr=False)
    groups: tuple[str, ...] = field(repr=False)
    metric: str

    @property
    def change(self) -> np.ndarray:
        """``values - baseline``, ``[condition, sample]``."""
        return self.values - self.baseline

    @property
    def relative(self) -> np.ndarray:
        """``(values - baseline) / |baseline|``, NaN where the baseline is 0."""
        size = np.abs(self.baseline)
        return np.divide(self.change, size, out=np.full_like(self.values, np.nan), where=size > 0)

    def summary(self, relative: bool = False, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """One row per condition: mean change, interval, p-value, and the same adjusted over all conditions (max-T)."""
        import pandas as pd

        change = self.relative if relative else self.change
        low, high = bootstrap_mean(change, self.groups, confidence=confidence, seed=seed)
        found = max_t(change, self.groups, seed=seed)
        return pd.DataFrame(
            {
                "condition": self.names,
                "samples": np.isfinite(change).sum(1),
                "change": np.nanmean(change, 1),
                "low": low,
                "high": high,
                "p_value": found.p,
                "p_adjusted": found.adjusted,
            }
        )


def measure_edits(
    model: LVLM,
    data: Sequence[Sample],
    conditions: Sequence[tuple[str, MakeEdits]],
    metric: str | LogitsFunction | Metric = "refusal_log_odds",
    batch_size: int = 32,
    progress: Progress | None = None,
    features: FeatureCache | None = None,
) -> Effects:
    """Run samples untouched and under every condition.

    Args:
        model: the model.
        data: samples.
        conditions: names, and functions that make a batch's edits.
        metric: as in :func:`~lvlm_lens.causal.patch_grid`; for ``kl`` and the answer's probability the untouched
            run is the reference.
        batch_size: samples per forward; halved when memory runs out.
        progress: called after each batch.
        features: pictures through the vision tower once, not once a condition (no edit may lie before them).

    Raises:
        UsageError: no conditions.
        NumericalError: a condition gives NaN or infinity.
    """
    if not conditions:
        raise UsageError("no conditions were given")
    measure = make_metric(metric, model)

    def work(encoded: Encoded) -> np.ndarray:  # [1 + condition, batch]
        base = model.logits(encoded)
        measure.prepare(base, base)
        rows = list(range(len(encoded)))
        found = [numbers(measure, base, rows)]
        for name, make in conditions:
            logits = edited_logits(model, encoded, make(encoded))
            if not bool(torch.isfinite(logits).all()):
                raise NumericalError(f"condition {name!r} gives NaN or infinity")
            found.append(numbers(measure, logits, rows))
        return np.stack(found)

    table = np.full((1 + len(conditions), len(data)), np.nan)
    for numbers_of, found in run_batches(model, data, work, batch_size, None, progress, features):
        table[:, numbers_of] = found
    return Effects(
        tuple(name for name, _ in conditions),
        table[0],
        table[1:],
        tuple(sample.id for sample in data),
        tuple(sample.group or sample.id for sample in data),
        measure.name,
    )
