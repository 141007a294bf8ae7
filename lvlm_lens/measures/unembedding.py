"""Final norm and unembedding as plain functions of a residual vector, for the lenses.

The lens of a block output ``h`` is ``W norm(h)``.  The last block is read *before* the final norm (a hook on its
output); ``hidden_states[-1]`` of transformers is after it, and a lens on that would normalise twice.  Rows are sliced
to the positions wanted before the norm and the head, never after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..errors import LensError, ModelError, UsageError
from ..lens import LVLM
from ..models.anatomy import LOGITS
from ..models.quantized import dense, float_dtype
from ..models.weights import offloaded, standalone

PIECE = 2**22
"""Numbers of the unembedding that are widened at a time: 16 MiB in float32, 32 in float64."""


@dataclass(frozen=True)
class Unembedding:
    """``logits = softcap(W norm(h) + bias)``.

    Attributes:
        weight: ``[vocab, d]``.
        norm: final norm, ``[row, d] -> [row, d]``; ``None`` for none.
        bias: ``[vocab]`` or ``None``; softcap: ``c tanh(logits / c)`` as in Gemma 2, or ``None``.
    """

    weight: torch.Tensor
    norm: Callable[[torch.Tensor], torch.Tensor] | None = None
    bias: torch.Tensor | None = None
    softcap: float | None = None

    @property
    def vocab(self) -> int:
        """Number of tokens."""
        return int(self.weight.shape[0])

    def normed(self, rows: Any) -> torch.Tensor:
        """``norm(h)`` in float32, ``[row, d]``."""
        h = torch.as_tensor(np.ascontiguousarray(rows) if isinstance(rows, np.ndarray) else rows)
        h = h.to(self.weight.device, torch.float32)
        if h.shape[-1] != self.weight.shape[1]:
            raise UsageError(f"rows have width {h.shape[-1]}; the unembedding has {self.weight.shape[1]}")
        with torch.no_grad():
            return h if self.norm is None else self.norm(h).float()

    def logits(self, rows: Any, tokens: Sequence[int] | torch.Tensor | None = None) -> torch.Tensor:
        """Logits ``[row, vocab]`` (or ``[row, token]`` for the given token ids), float32."""
        weight, bias = self.weight, self.bias
        if tokens is not None:
            ids = torch.as_tensor(tokens, device=weight.device)
            weight, bias = weight[ids], None if bias is None else bias[ids]
        with torch.no_grad():
            h = self.normed(rows)
            # a narrower weight is widened piece by piece: whole, it would be a second vocabulary in float32
            pieces = [weight] if weight.dtype == torch.float32 else _pieces(weight)
            out = torch.cat([h @ piece.float().T for piece in pieces], dim=-1)
            out = out if bias is None else out + bias.float()
            return out if self.softcap is None else self.softcap * torch.tanh(out / self.softcap)

    def chunks(self, rows: np.ndarray, entries: int = LOGITS) -> Iterator[tuple[slice, torch.Tensor]]:
        """``(rows, logits)`` in pieces of at most ``entries`` numbers."""
        size = max(1, entries // self.vocab)
        for start in range(0, len(rows), size):
            part = slice(start, min(start + size, len(rows)))
            yield part, self.logits(rows[part])

    @cached_property
    def mean_row(self) -> torch.Tensor:
        """Mean over tokens of the unembedding, ``[d]`` float64 on the CPU."""
        # piece by piece: a sum in another dtype makes a copy of what it sums
        return torch.stack([part.double().sum(0).cpu() for part in _pieces(self.weight)]).sum(0) / self.vocab

    @cached_property
    def gram(self) -> torch.Tensor:
        """``W'W`` of the unembedding, ``[d, d]`` float64 on the CPU: ``|W h|^2 = h' (W'W) h``.

        Kept with this object; who needs it for one thing only asks a copy of it (:func:`dataclasses.replace`).
        """
        width = self.weight.shape[1]
        total = torch.zeros(width, width, dtype=torch.float64)
        for part in _pieces(self.weight):
            piece = part.double().cpu()
            total.addmm_(piece.T, piece)
            del piece  # else it stays while the next one is made
        return total


def _pieces(weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Rows of a weight in parts of at most :data:`PIECE` numbers, one row at least."""
    return weight.split(max(1, PIECE // weight.shape[1]))


def token_ids(ids: Sequence[int] | np.ndarray, vocab: int, what: str) -> np.ndarray:
    """Distinct token ids, checked against the vocabulary."""
    out = np.unique(np.asarray(ids, dtype=np.int64))
    if not len(out):
        raise UsageError(f"no {what} given; the lens needs at least one token id")
    if out[0] < 0 or out[-1] >= vocab:
        raise UsageError(
            f"{what} hold {int(out[-1] if out[-1] >= vocab else out[0])}; the vocabulary has {vocab} tokens"
        )
    if len(out) == vocab:
        raise UsageError(f"{what} hold the whole vocabulary of {vocab} tokens")
    return out


def unembedding_of(model: LVLM, keep: bool = False) -> Unembedding:
    """Final norm and head of a model as plain functions; the logit scale is folded into the weights.

    With ``keep`` they are copies, which a random twin's must be: its weights are put back.

    Raises :class:`ModelError` for a family that bars ids after its head: their logits are no numbers to compare.
    """
    anatomy = model.anatomy
    if anatomy.barred is not None:
        raise ModelError(f"family {anatomy.family.model_type!r} bars tokens after its head; the lens has no such step")
    head: Any = anatomy.head
    norm = anatomy.norm
    if keep or offloaded(model.model):
        head, norm = standalone(model.model, head), standalone(model.model, norm)
    dtype = float_dtype(head, norm)
    weight, bias = dense(head.weight, dtype), getattr(head, "bias", None)
    scale = anatomy.logit_scale
    return Unembedding(
        weight.detach() * scale if scale != 1 else weight.detach(),
        lambda rows: norm(rows.to(dtype)),
        None if bias is None else bias.detach() * scale,
        anatomy.softcap or None,
    )


def twin_lens(twin: LVLM) -> Unembedding | None:
    """The twin's own final norm and head, or ``None`` for a family whose head is more than a matrix."""
    try:
        return unembedding_of(twin, keep=True)
    except LensError:
        return None
