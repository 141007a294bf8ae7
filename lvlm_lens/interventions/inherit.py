"""When a patched span makes everything up to its end the donor's: those keys and values need no second run. [own]

Put the donor's residuals at *all* positions from the first one that differs between two prompts up to some column
``stop`` (a whole picture, say).  With causal attention every state before ``stop`` is then the donor's from that block
on, in every block above: it read nothing that differs.  The donor's run has already computed the keys and values of
these states, so only the positions from ``stop`` on are run again, over the donor's prefix instead of the recipient's.
A cell that patches 576 image tokens costs as much as one that patches the last of them.

Nothing is assumed of the prompts: :meth:`Inheritance.of` compares what was recorded and says ``None`` wherever the two
runs are not interchangeable before the span: other masks or positions, a query there that reads on into the span, other
keys or values in the first block (to the bit: two recordings are runs of one shape), or, above it, keys and values that
are further apart than rounding explains.
"""

from __future__ import annotations

from typing import Any

import torch

from .cell import Inherited
from .reach import suffix_starts
from .recording import Recording

CARRIES_ALL = frozenset({"resid_pre", "resid_post", "image_features"})
"""Sites that hold everything a position knows; other sites leave the recipient's residual beside the written part."""


class Inheritance:
    """What cells of one recording may take over from another, remembered for each row and span."""

    def __init__(self, donor: Recording, recipient: Recording) -> None:
        self.donor, self.recipient = donor, recipient
        self._known: dict[tuple[int, tuple[int, ...]], Inherited | None] = {}
        ready = bool(donor.keys) and bool(recipient.keys) and donor.keys.keys() == recipient.keys.keys()
        self._possible = ready and donor.length == recipient.length and not donor.added and not recipient.added
        self._starts: list[torch.Tensor] = []

    def of(self, site: str, row: int, columns: tuple[int, ...], donor_columns: tuple[int, ...]) -> Inherited | None:
        """The donor's prefix that a write of ``columns`` brings about, or ``None``.

        Args:
            site: name of the site that is written.
            row: of both recordings.
            columns: padded columns that are written, ascending.
            donor_columns: padded columns that the values come from.
        """
        if not self._possible or site not in CARRIES_ALL or columns != donor_columns:
            return None
        key = (row, columns)
        if key not in self._known:
            self._known[key] = self._find(row, columns)
        return self._known[key]

    def _find(self, row: int, columns: tuple[int, ...]) -> Inherited | None:
        first, stop = columns[0], columns[-1] + 1
        if columns != tuple(range(first, stop)) or stop > self.recipient.last[row]:
            return None
        if self.donor.last[row] < stop:
            return None
        attended = [rec.attended[row, :stop] for rec in (self.donor, self.recipient)]
        if not torch.equal(*attended):
            return None
        # nothing before the span may read it, and nothing before ``stop`` what comes after
        self._starts = self._starts or [suffix_starts(rec) for rec in (self.donor, self.recipient)]
        if any(int(starts[row, at]) != at for starts in self._starts for at in (first, stop)):
            return None
        read = attended[0][:first].nonzero().flatten()
        lowest = min(self.donor.keys)
        for block, keys in self.donor.keys.items():
            # the first block's keys come from the embeddings alone; a tolerance there would let similar tokens pass in
            # half precision, while above it runs of equal inputs may round apart (experts see other batches)
            alike = torch.equal if block == lowest else _close
            for one, other in (
                (keys, self.recipient.keys[block]),
                (self.donor.values[block], self.recipient.values[block]),
            ):
                if not alike(one[row][:, read.to(one.device)], other[row][:, read.to(one.device)]):
                    return None
        # blocks share their masks and rotary embeddings, so each pair of tensors is compared once
        seen: set[tuple[int, int]] = set()
        for ours, theirs in zip(self.donor.calls.values(), self.recipient.calls.values(), strict=True):
            if not _same_call(ours, theirs, row, stop, seen):
                return None
        return Inherited(self.donor, row, stop)


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal up to the rounding of one kernel on two batches."""
    if not one.numel():
        return True
    scale = max(1.0, float(one.abs().max()))
    return float((one - other).abs().max()) <= 32 * torch.finfo(one.dtype).eps * scale


def _same_call(one: dict[str, Any], other: dict[str, Any], row: int, stop: int, seen: set[tuple[int, int]]) -> bool:
    """Whether a block was called alike, as far as the columns before ``stop`` are concerned."""
    return one.keys() == other.keys() and all(_same(name, one[name], other[name], row, stop, seen) for name in one)


def _same(name: str, one: Any, other: Any, row: int, stop: int, seen: set[tuple[int, int]]) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(
            _same(name, a, b, row, stop, seen) for a, b in zip(one, other, strict=True)
        )
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return not torch.is_tensor(one) and not torch.is_tensor(other) and bool(one is other or one == other)
    if (id(one), id(other)) in seen:
        return True
    seen.add((id(one), id(other)))
    if one.ndim != other.ndim:
        return False
    if name == "attention_mask":  # [R or 1, 1, T, T]
        cut = [x[min(row, len(x) - 1), :, :stop, :stop] for x in (one, other)]
    elif name == "cache_position":
        cut = [x[:stop] for x in (one, other)]
    else:  # [.., R or 1, T] (position_ids) or [.., R or 1, T, D] (rotary embeddings)
        sequence = one.ndim - (1 if name == "position_ids" else 2)
        cut = [
            x.select(sequence - 1, min(row, x.shape[sequence - 1] - 1)).narrow(sequence - 1, 0, stop)
            for x in (one, other)
        ]
    return torch.equal(*cut)
