"""Forwards of one batch under many configurations of an adapter, each from the first block that it changes.

Two forwards are recorded: everything off (the base) and everything on (the trained model).  They keep what entered
every block.  A configuration agrees with one of the two up to some block; its own forward skips the blocks below,
and that block reads the recorded residual.  The model's own forward does the rest: masks, rotary embeddings, what is
added between blocks, the head.  So nothing is approximated, and every family whose blocks read the residual and not one
another's keys is run this way.  [own]

A picture goes through the vision tower once for each setting of the tower and the projector, not once a forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from ..activations.features import FeatureCache
from ..activations.hooks import attached
from ..activations.sites import Site, tap
from ..interventions.verification import Checked
from ..lens import LVLM
from ..models.encode import Encoded
from ..tolerance import allowed, largest
from .adapter_switches import OFF, ON, Config, Switches
from .metrics import Metric, numbers

CHAINED = {"shared_kv": "late blocks read the keys and values of earlier ones, so none can be skipped"}
"""What families do that forbids skipping blocks."""


@dataclass
class Forward:
    """What one forward gave.

    Attributes:
        logits: float32 ``[R, vocab]``, last token.
        states: float32 ``[R, d]``, output of the probed block, last token.
        pre: what entered each block, ``[R, T, d]`` each, where it was recorded.
    """

    logits: torch.Tensor
    states: torch.Tensor
    pre: list[torch.Tensor] = field(default_factory=list)


class Runs:
    """Runs configurations of one adapter on batches.

    Args:
        model: holding the adapter.
        switches: of the adapter.
        probe_block: whose output at the last token is kept.
        exact: ``full`` never skips a block.

    Attributes:
        reason: why whole forwards are run, or ``None`` where blocks are skipped.
        blocks_run, blocks_whole: blocks that were run, and that whole forwards would have run.
    """

    def __init__(self, model: LVLM, switches: Switches, probe_block: int, exact: str = "auto") -> None:
        self.model, self.switches, self.probe_block = model, switches, probe_block
        flow = model.anatomy.family.flow
        self.reason = next((why for name, why in CHAINED.items() if name in flow), None)
        if exact == "full":
            self.reason = "asked for"
        self.blocks_run = self.blocks_whole = 0
        self._features: dict[Config, FeatureCache] = {}
        self._tuples: list[int] = []  # for each block: how many things it returns, 0 where it returns the tensor itself

    def record(self, encoded: Encoded) -> tuple[Forward, Forward]:
        """The base and the trained model on a batch, with what entered every block."""
        self._tuples = []
        handles = [block.register_forward_hook(self._note_container) for block in self.model.anatomy.blocks]
        try:
            base = self._forward(encoded, self.switches.config(OFF), None, 0, keep=True)
        finally:
            for handle in handles:
                handle.remove()
        return base, self._forward(encoded, self.switches.config(ON), None, 0, keep=True)

    def _note_container(self, module: Any, args: Any, output: Any) -> None:
        self._tuples.append(len(output) if isinstance(output, tuple) else 0)

    def run(self, encoded: Encoded, config: Config, recorded: tuple[Forward, Forward]) -> Forward:
        """One configuration, from the first block at which it differs from the nearer of the two recorded forwards."""
        near, entry = self.nearest(config, recorded)
        if entry >= self.model.n_blocks:
            return near
        if self.reason is not None or entry < 0:
            return self._forward(encoded, config, None, 0)
        return self._forward(encoded, config, near, entry)

    def blocks_of(self, config: Config) -> int:
        """How many blocks :meth:`run` runs for a configuration."""
        entry = max(self.switches.entry(config, self.switches.config(mode)) for mode in (OFF, ON))
        if entry >= self.model.n_blocks:
            return 0
        return self.model.n_blocks if self.reason is not None or entry < 0 else self.model.n_blocks - entry

    def nearest(self, config: Config, recorded: tuple[Forward, Forward]) -> tuple[Forward, int]:
        """The recorded forward that a configuration agrees with longest, and the first block that it changes."""
        entries = [self.switches.entry(config, self.switches.config(mode)) for mode in (OFF, ON)]
        best = int(np.argmax(entries))
        return recorded[best], entries[best]

    def whole(self, encoded: Encoded, config: Config) -> Forward:
        """The definition that :meth:`run` must meet: every block is run, and no feature is taken from elsewhere."""
        self.switches.apply(config)
        return self._read(encoded, [])

    def _forward(
        self, encoded: Encoded, config: Config, start: Forward | None, entry: int, keep: bool = False
    ) -> Forward:
        self.switches.apply(config)
        anatomy = self.model.anatomy
        hooks: list[Any] = []
        pre: list[torch.Tensor] = []
        if start is not None:
            site = Site("resid_pre", entry)
            hooks.append((site, tap(site, anatomy), lambda value, site: start.pre[entry]))
        if keep:
            for block in range(self.model.n_blocks):
                site = Site("resid_pre", block)
                hooks.append((site, tap(site, anatomy), lambda value, site: pre.append(value.clone())))
        with skipped(anatomy.blocks[:entry], self._tuples):
            found = self._read(self._with_features(encoded, config), hooks)
        found.pre = pre
        self.blocks_run += self.model.n_blocks - entry
        self.blocks_whole += self.model.n_blocks
        return found

    def _with_features(self, encoded: Encoded, config: Config) -> Encoded:
        """Features in place of pixels; where no block below the entry is run their values reach nothing."""
        if self.reason is not None:
            return encoded
        cache = self._features.setdefault(self.switches.outside(config), FeatureCache(self.model))
        return cache.apply(encoded)

    def _read(self, encoded: Encoded, hooks: list[Any]) -> Forward:
        states: list[torch.Tensor] = []
        rows = torch.arange(len(encoded))
        last = torch.tensor([layout.last for layout in encoded.layouts])

        def keep(value: torch.Tensor, site: Site) -> None:
            states.append(value[rows.to(value.device), last.to(value.device)].float())

        site = Site("resid_post", self.probe_block)
        with attached([*hooks, (site, tap(site, self.model.anatomy), keep)]), torch.inference_mode():
            logits = self.model.logits(encoded)
        return Forward(logits, states[-1])


@contextmanager
def skipped(blocks: Sequence[nn.Module], containers: Sequence[int]) -> Iterator[None]:
    """Inside, these blocks give back what they read, in the container that each of them returns (0: the tensor)."""
    before = [block.__dict__.get("forward") for block in blocks]
    try:
        for block, size in zip(blocks, containers, strict=False):
            block.forward = partial(_passing, size)  # type: ignore[method-assign]
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            if own is not None:
                block.forward = own  # type: ignore[method-assign]
            else:
                block.__dict__.pop("forward", None)


def _passing(size: int, *args: Any, **kwargs: Any) -> Any:
    hidden = args[0] if args else kwargs["hidden_states"]
    return (hidden, *[None] * (size - 1)) if size else hidden


def compare_with_whole(
    runs: Runs,
    encoded: Encoded,
    configs: Sequence[Config],
    recorded: tuple[Forward, Forward],
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
        plain, again = runs.whole(encoded, config).logits, runs.whole(twice, config).logits[: len(encoded)]
        difference.append(_most(fast - plain))
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
