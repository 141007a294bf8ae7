"""Forwards of one batch under many configurations of an adapter, each from the first block that it changes.

Two forwards are recorded: everything off (the base) and everything on (the trained model).  They keep what left
every block.  A configuration agrees with one of the two up to some block, so its own forward begins there, on the
recorded residual (:func:`~lvlm_lens.interventions.rerun.rerun`); the vision tower, the embedding and the blocks below
are not run.  Where the tower or the projector itself is switched, the whole model is run, and so it is for families
whose later blocks cannot be run by themselves.  [own]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..interventions.recording import Recording, record
from ..interventions.rerun import Rerun, obstacle_to_rerun, rerun, whole
from ..interventions.verification import Checked
from ..lens import LVLM
from ..models.encode import Encoded
from ..tolerance import allowed, largest
from .adapter_switches import OFF, ON, Config, Switches
from .metrics import Metric, numbers

Recorded = tuple[Recording, Recording]
"""The base and the trained model on one batch."""


class Runs:
    """Runs configurations of one adapter on batches.

    Args:
        model: holding the adapter.
        switches: of the adapter.
        probe_block: whose output at the last token is kept.
        exact: ``full`` always runs the whole model.

    Attributes:
        reason: why whole forwards are run, or ``None`` where blocks are skipped; known when a batch was recorded.
        blocks_run, blocks_whole: blocks that were run, and that whole forwards would have run.
    """

    def __init__(self, model: LVLM, switches: Switches, probe_block: int, exact: str = "auto") -> None:
        self.model, self.switches, self.probe_block = model, switches, probe_block
        self.reason = "asked for" if exact == "full" else None
        self.blocks_run = self.blocks_whole = 0

    def record(self, encoded: Encoded) -> Recorded:
        """The base and the trained model on a batch, with what left every block."""
        base, trained = (self._recorded(encoded, mode) for mode in (OFF, ON))
        self.reason = self.reason or obstacle_to_rerun(self.model, base)
        return base, trained

    def _recorded(self, encoded: Encoded, mode: str) -> Recording:
        self.switches.apply(self.switches.config(mode))
        self._count(0)
        return record(self.model, encoded, keys=False)

    def run(self, encoded: Encoded, config: Config, recorded: Recorded) -> Rerun:
        """One configuration, from the first block at which it differs from the nearer of the two recorded forwards."""
        near, entry = self.nearest(config, recorded)
        if entry >= self.model.n_blocks:
            assert near.logits is not None
            return Rerun(near.logits, {self.probe_block: self._recorded_state(near)})
        self.switches.apply(config)
        if self.reason is not None or entry < 0:
            self._count(0)
            return whole(self.model, near, encoded, 0, keep=[self.probe_block])
        self._count(entry)
        found = rerun(self.model, near, entry - 1, keep=[self.probe_block])
        found.states.setdefault(self.probe_block, self._recorded_state(near))  # a block below the first that is changed
        return found

    def blocks_of(self, config: Config) -> int:
        """How many blocks :meth:`run` runs for a configuration."""
        return self.switches.blocks_of(config, self.model.n_blocks, whole=self.reason is not None)

    def nearest(self, config: Config, recorded: Recorded) -> tuple[Recording, int]:
        """The recorded forward that a configuration agrees with longest, and the first block that it changes."""
        entries = [self.switches.entry(config, self.switches.config(mode)) for mode in (OFF, ON)]
        best = int(np.argmax(entries))
        return recorded[best], entries[best]

    def whole(self, encoded: Encoded, config: Config) -> torch.Tensor:
        """The logits that :meth:`run` has to reproduce, float32 ``[R, vocab]``: the model's own whole forward."""
        self.switches.apply(config)
        with torch.inference_mode():
            return self.model.logits(encoded)

    def _recorded_state(self, rec: Recording) -> torch.Tensor:
        return rec.at_last(rec.left[self.probe_block]).float()

    def _count(self, entry: int) -> None:
        self.blocks_run += self.model.n_blocks - entry
        self.blocks_whole += self.model.n_blocks


def compare_with_whole(
    runs: Runs,
    encoded: Encoded,
    configs: Sequence[Config],
    recorded: Recorded,
    metric: Metric,
    count: int,
    seed: int,
) -> Checked | None:
    """Hold ``count`` configurations, drawn at random, against whole forwards; ``None`` where none skips a block.

    The noise is what the same whole forward does in another batch shape; see
    :mod:`lvlm_lens.interventions.verification`.
    """
    model = runs.model
    able = [config for config in configs if runs.reason is None and runs.nearest(config, recorded)[1] > 0]
    chosen = [able[n] for n in np.random.default_rng(seed).permutation(len(able))[:count]]
    if not chosen:
        return None
    twice = model.encode([*encoded.samples, *encoded.samples])
    rows = list(range(len(encoded)))
    difference, effect, noise, scale, bound, metric_noise = [], [], 0.0, 1.0, 0.0, 0.0
    for config in chosen:
        near, _ = runs.nearest(config, recorded)
        fast = runs.run(encoded, config, recorded).logits
        plain, again = runs.whole(encoded, config), runs.whole(twice, config)[: len(encoded)]
        difference.append(_most(fast - plain))
        assert near.logits is not None
        effect.append(_most(plain - near.logits))
        noise, scale = max(noise, _most(plain - again)), max(scale, _most(plain))
        bound = max(bound, allowed(model.dtype, plain))
        apart = np.abs(numbers(metric, plain, rows) - numbers(metric, again, rows))
        metric_noise = max(metric_noise, float(apart.max()))
    unit = torch.finfo(model.dtype).eps * scale
    return Checked(np.array(difference), np.array(effect), max(unit, noise), bound, model.dtype, metric_noise)


def _most(logits: torch.Tensor) -> float:
    return float(largest(logits).max())


def plain_logits(model: LVLM, forward: Callable[..., Any], prompts: Sequence[Any]) -> torch.Tensor:
    """Float32 ``[prompt, vocab]`` at the last token: a plain call on the processor's own output, one prompt at a time.

    Shares nothing with :class:`Runs`: no encoding of ours, no padding, no hook, no switch.
    """
    from ..activations.untouched import untouched

    with torch.inference_mode():
        return torch.stack([forward(**untouched(model, prompt)).logits[0, -1].float().cpu() for prompt in prompts])
