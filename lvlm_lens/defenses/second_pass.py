"""A second pass that starts in the middle: change one block's output, run only the blocks after it.

The first pass is the model's plain forward.  Hooks on the decoder's blocks keep the residual
after the blocks that will be needed and, for every block, the arguments it was called with: masks,
rotary embeddings, per-layer inputs, cross-attention states.  The second pass calls the later
blocks again, one after the other, with those same arguments and another residual, then the final
norm and the unembedding at the last token.  The vision tower, the embedding and the blocks up to
the changed one are not run again.

This is exact wherever a block reads nothing but the residual and arguments that do not depend on
it.  What a decoder adds *between* two blocks without looking at the residual (DeepStack's visual
features) is measured in the first pass as a difference and added again.  Other families fall
back to a whole forward with the same edit, and every use says which of the two it did.
:meth:`FirstPass.check` measures the largest difference between the two on a batch.  [own]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from ..activations import Site, attached, tap
from ..errors import ModelError, NumericalError, SiteError
from ..lens import LVLM
from ..models.encode import Encoded

TOLERANCE = 1e-3
"""Largest allowed difference of logits, relative to their spread, for a resumed pass to count as exact."""


FORBIDDEN = -1e30
"""Logits below this are tokens that a family forbids (Chameleon its image tokens): they carry no information."""


def spread(logits: torch.Tensor) -> float:
    """Standard deviation of the logits, forbidden tokens left out."""
    return max(float(logits[logits > FORBIDDEN].std()), 1e-6)


@dataclass
class _Call:
    """How the decoder called one block."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    key: str | None  # the keyword that holds the residual; None when it is the first positional argument
    residual: torch.Tensor | None

    def again(self, block: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        if self.key is None:
            output = block(hidden, *self.args[1:], **self.kwargs)
        else:
            output = block(*self.args, **{**self.kwargs, self.key: hidden})
        return output[0] if isinstance(output, tuple) else output


@dataclass
class FirstPass:
    """One plain forward of a batch and what a second pass needs of it.

    Attributes:
        model, encoded: what was run.
        states: ``resid_post`` of the kept blocks, ``[batch, position, d_model]``.
        logits: float32 ``[batch, vocab]`` at the last token.
        last: column of each row's last attended token, ``[batch]``.
        attended: bool ``[batch, position]``, False on padding.
        resumable: ``""``, or why later blocks cannot be run again by themselves.
    """

    model: LVLM
    encoded: Encoded
    states: dict[int, torch.Tensor]
    logits: torch.Tensor
    last: torch.Tensor
    attended: torch.Tensor
    resumable: str = ""
    _calls: dict[int, _Call] = field(default_factory=dict, repr=False)
    _between: dict[int, torch.Tensor] = field(default_factory=dict, repr=False)

    @property
    def forbidden(self) -> torch.Tensor:
        """Tokens whose logit the family forbids in every row, bool ``[vocab]``."""
        return (self.logits < FORBIDDEN).all(0)

    def rows(self, hidden: torch.Tensor) -> torch.Tensor:
        """The last attended token of each row, ``[batch, d_model]``."""
        # some families compute their last blocks only at the final positions (Gemma 4 with shared keys and values)
        dropped = self.attended.shape[1] - hidden.shape[1]
        return hidden[torch.arange(len(hidden), device=hidden.device), self.last.to(hidden.device) - dropped]

    @torch.inference_mode()
    def resume(self, block: int, hidden: torch.Tensor, keep: Iterable[int] = ()) -> SecondPass:
        """Run on from ``hidden``, the residual to stand after ``block``.

        Args:
            block: the block whose output is replaced.
            hidden: ``[batch, position, d_model]``.
            keep: later blocks whose output at the last token is wanted.

        Raises:
            NumericalError: the edited residual holds NaN or infinity.
        """
        if not torch.isfinite(hidden).all():
            raise NumericalError(f"the edited residual after block {block} holds NaN or infinity")
        if self.resumable:
            return self.full(block, hidden, keep)
        anatomy, kept = self.model.anatomy, {}
        wanted = set(keep)
        for later in range(block + 1, anatomy.n_blocks):
            if later not in self._calls:  # a block the family skips when there is no picture
                continue
            if later in self._between:
                hidden = hidden + self._between[later]
            hidden = self._calls[later].again(anatomy.blocks[later], hidden)  # [batch, position, d_model]
            if later in wanted:
                kept[later] = self.rows(hidden).float()
        last = self.rows(hidden)  # [batch, d_model]
        logits = anatomy.lens(last).float()
        return SecondPass(logits.masked_fill(self.forbidden, float(self.logits.min())), last.float(), kept)

    @torch.inference_mode()
    def full(self, block: int, hidden: torch.Tensor, keep: Iterable[int] = ()) -> SecondPass:
        """The same by a whole forward with the residual replaced by a hook: slower, and the reference."""
        anatomy, kept = self.model.anatomy, {}
        end = anatomy.n_blocks - 1
        site = Site("resid_post", block)

        def reader(value: torch.Tensor, where: Site) -> None:
            kept[where.block] = self.rows(value).float()

        reads = [Site("resid_post", b) for b in sorted({*keep, end})]
        hooks = [(site, tap(site, anatomy), lambda value, where: hidden.to(value.device))]
        with attached([*hooks, *((r, tap(r, anatomy), reader) for r in reads)]):
            logits = self.model.logits(self.encoded)
        return SecondPass(logits, kept[end], {b: kept[b] for b in keep})

    def check(self, block: int, hidden: torch.Tensor) -> float:
        """Largest difference of logits between the two ways, relative to the logits' standard deviation."""
        fast, slow = self.resume(block, hidden).logits, self.full(block, hidden).logits
        return float((fast - slow).abs().max()) / spread(slow)


@dataclass(frozen=True)
class SecondPass:
    """What comes out of a second pass, all at the last token, float32.

    Attributes:
        logits: ``[batch, vocab]``.
        last_resid: residual after the last block, before the final norm, ``[batch, d_model]``.
        kept: residual after the blocks asked for, ``[batch, d_model]`` each.
    """

    logits: torch.Tensor
    last_resid: torch.Tensor
    kept: dict[int, torch.Tensor]


@torch.inference_mode()
def first_pass(model: LVLM, encoded: Encoded, keep: Iterable[int]) -> FirstPass:
    """Run a batch plainly and keep what a second pass needs.

    Args:
        model: the model.
        encoded: one encoded batch, padded on either side.
        keep: blocks whose output is kept at every position.

    Raises:
        SiteError: a block never ran, or ran more than once.
        ModelError: the family keeps several residual streams, so that there is no ``H_s`` to project.
    """
    anatomy = model.anatomy
    calls: dict[int, list[_Call]] = {}
    outputs: dict[int, torch.Tensor] = {}
    handles = []

    def before(block: int) -> Any:
        def hook(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
            del module
            key = None if args and isinstance(args[0], torch.Tensor) else "hidden_states"
            residual = args[0] if key is None else kwargs.get(key)
            calls.setdefault(block, []).append(_Call(args, kwargs, key, residual))

        return hook

    def after(block: int) -> Any:
        def hook(module: torch.nn.Module, args: Any, output: Any) -> None:
            del module, args
            outputs[block] = output[0] if isinstance(output, tuple) else output

        return hook

    for block, module in enumerate(anatomy.blocks):
        handles.append(module.register_forward_pre_hook(before(block), with_kwargs=True))
        handles.append(module.register_forward_hook(after(block)))
    try:
        logits = model.logits(encoded)
    finally:
        for handle in handles:
            handle.remove()
    wanted = sorted(set(keep))
    for block in wanted:
        if block not in outputs:
            raise SiteError(f"block {block} did not run in this forward, so its output cannot be projected")
        if outputs[block].ndim != 3:
            raise ModelError(
                f"family {anatomy.family.model_type!r} keeps several residual streams (block output of shape "
                f"{tuple(outputs[block].shape)}); projecting one block's residual on another's is not defined there"
            )
    mask = encoded.inputs["attention_mask"].bool()
    last = torch.tensor([layout.last for layout in encoded.layouts], device=mask.device)
    reason = next((f"block {b} runs {len(c)} times in one forward" for b, c in calls.items() if len(c) != 1), "")
    if any(call[0].residual is None for call in calls.values()):
        reason = "the blocks do not take their residual as an argument that is known"
    plain = {block: call[0] for block, call in calls.items()}
    between = {}
    for earlier, later in zip(sorted(plain), sorted(plain)[1:], strict=False):
        entered, left = plain[later].residual, outputs[earlier]
        if reason or entered is left:
            continue
        if entered is None or entered.shape != left.shape:
            reason = f"the residual changes shape between blocks {earlier} and {later}"
        else:
            left = left.to(entered.device)  # blocks may be spread over devices
            if not torch.equal(entered, left):
                between[later] = entered - left
    for call in plain.values():
        call.residual = None  # kept in states where it is needed
    states = {block: outputs[block] for block in wanted}
    made = FirstPass(model, encoded, states, logits, last, mask, reason, plain, between)
    end = anatomy.n_blocks - 1
    if not reason and end in outputs:
        tail = anatomy.lens(made.rows(outputs[end])).float()
        if float((tail - logits)[:, ~made.forbidden].abs().max()) / spread(logits) > TOLERANCE:
            made.resumable = "norm and head applied to the last block's output do not give the model's logits"
    return made
