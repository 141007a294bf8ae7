"""Every row of a batch once more, from some block on: what an edit of many positions needs.

:func:`rerun` calls the later blocks again with the arguments that the recorded forward gave them (masks, rotary
embeddings, per-layer inputs, cross-attention states) and another residual, then the final norm and the unembedding at
the last token.  The vision tower, the embedding and the blocks below are not run again.  What a decoder adds *between*
two blocks without looking at the residual (DeepStack) was recorded as a difference and is added again.

That is exact wherever a block reads nothing but the residual and arguments that do not depend on it.  :class:`Reruns`
holds the first one against :func:`whole`, a plain forward with the same edit as hooks, and runs whole forwards
where the two differ or nothing can be resumed; ``reason`` says why.  [own]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from ..activations.hooks import attached
from ..activations.sites import Site, tap
from ..errors import NumericalError
from ..models.encode import Encoded
from ..models.loaded import LoadedModel
from ..tolerance import allowed, difference, largest
from .edit import Edit
from .reach import UNRESUMABLE
from .recording import Recording, first_of


@dataclass(frozen=True)
class Rerun:
    """What comes out of a run, at the last token, float32.

    Attributes:
        logits: ``[R, vocab]``.
        states: residual after the last block and the blocks asked for, ``[R, d]`` each.
    """

    logits: torch.Tensor
    states: dict[int, torch.Tensor]


@torch.inference_mode()
def rerun(
    model: LoadedModel,
    rec: Recording,
    after: int,
    hidden: torch.Tensor | None = None,
    edits: Sequence[Edit] = (),
    keep: Iterable[int] = (),
) -> Rerun:
    """Run the blocks after ``after`` on ``hidden`` ``[R, T, d]`` (what was recorded there, if not given).

    Args:
        model: the model.
        rec: a recording of the batch that kept what left ``after``.
        after: a block; -1 for all blocks.
        hidden: the residual to stand after it.
        edits: hooks that write in the later blocks.
        keep: later blocks whose output at the last token is wanted.
    """
    value = rec.left[after] if hidden is None else hidden
    wanted, states = {*keep, rec.order[-1]}, {}
    with attached([(site, tap(site, model.anatomy), function) for site, function in edits]):
        for previous, block in pairwise([after, *(b for b in rec.order if b > after)]):
            if previous in rec.added:
                value = value + rec.added[previous]
            value = first_of(model.anatomy.blocks[block](value, **rec.calls[block]))  # [R, T, d]
            if block in wanted:
                states[block] = rec.at_last(value).float()
    last = rec.at_last(value)  # [R, d]
    states.setdefault(model.n_blocks - 1, last.float())
    return Rerun(rec.barred(model.anatomy.lens(last).float()), states)


@torch.inference_mode()
def whole(
    model: LoadedModel,
    rec: Recording,
    encoded: Encoded,
    after: int,
    hidden: torch.Tensor | None = None,
    edits: Sequence[Edit] = (),
    keep: Iterable[int] = (),
) -> Rerun:
    """The same by a whole forward with hooks: slower; :func:`rerun` has to reproduce it."""
    states: dict[int, torch.Tensor] = {}

    def read(value: torch.Tensor, site: Site) -> None:
        assert site.block is not None
        states[site.block] = rec.at_last(value).float()

    hooks = list(edits)
    if hidden is not None:
        hooks.insert(0, (Site("resid_post", after), lambda value, site: hidden.to(value.device)))
    hooks += [(Site("resid_post", block), read) for block in sorted({*keep, model.n_blocks - 1})]
    with attached([(site, tap(site, model.anatomy), function) for site, function in hooks]):
        return Rerun(model.logits(encoded), states)


@dataclass
class Reruns:
    """Reruns of one model, checked once.

    Attributes:
        reason: why whole forwards are run, or ``None``.
        error: largest difference of logits that :meth:`check` found, as a share of the largest logit.
    """

    model: LoadedModel
    reason: str | None = None
    error: float | None = field(default=None, init=False)

    def check(
        self,
        rec: Recording,
        encoded: Encoded,
        after: int,
        hidden: torch.Tensor | None = None,
        edits: Sequence[Edit] = (),
    ) -> None:
        """Hold one rerun against a whole forward; where they differ, ``reason`` says so."""
        self.reason = self.reason or obstacle_to_rerun(self.model, rec)
        if self.reason is not None or self.error is not None:
            return
        plain = whole(self.model, rec, encoded, after, hidden, edits).logits
        found = difference(rerun(self.model, rec, after, hidden, edits).logits, plain)
        self.error = found / max(1.0, float(largest(plain).max()))
        if not found <= allowed(self.model.dtype, plain):
            self.reason = f"a run begun at a block differs from the whole forward by {self.error:.1e} of the logits"

    def run(
        self,
        rec: Recording,
        encoded: Encoded,
        after: int,
        hidden: torch.Tensor | None = None,
        edits: Sequence[Edit] = (),
        keep: Iterable[int] = (),
    ) -> Rerun:
        """One rerun, or the whole forward where that is needed; arguments of :func:`rerun`.

        Raises :class:`NumericalError` where ``hidden`` holds NaN or infinity.
        """
        if hidden is not None and not bool(torch.isfinite(hidden).all()):
            raise NumericalError(f"the edited residual after block {after} holds NaN or infinity")
        if self.reason or obstacle_to_rerun(self.model, rec):
            return whole(self.model, rec, encoded, after, hidden, edits, keep)
        return rerun(self.model, rec, after, hidden, edits, keep)


def obstacle_to_rerun(model: LoadedModel, rec: Recording) -> str | None:
    """Why later blocks cannot be run again by themselves, or ``None`` where they can."""
    if "shared_kv" in model.anatomy.family.flow:
        return UNRESUMABLE["shared_kv"]
    if rec.order != sorted(set(rec.order)):
        return "blocks are not each called once, in order, in a forward"
    if any(hidden.shape[1] != rec.length for hidden in rec.left.values()):
        return "late blocks are computed at the last tokens only"
    return None
