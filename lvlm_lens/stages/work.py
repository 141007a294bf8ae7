"""What a stage asks of a machine, said by the stage itself: the estimate before a run turns it into seconds.

Counts are upper bounds where a run decides only later how much there is to do (pairs that behave, say).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Work of one stage.

    Attributes:
        rows: prompts put through the whole model; a pass that begins in a later block or position counts for its
            share of blocks times positions.
        steps: decoding steps, each one forward of a single token a row.
        probes: probes of one block fitted with the null's shuffles; probes_plain: fitted without them.
        products: multiply-adds of wide matrix products in float32, where the model is; products_double: in float64, on
            the processor.
        wide_fits: logistic probes on first-token logits; tables: such logits turned into coordinates of their items;
            tuned: probes on those, whose C is chosen by an inner cross-validation.
        shuffled: weights put into random order, and back.
        figures: figures that are drawn.
        note: what the count supposes.
    """

    rows: float = 0.0
    steps: float = 0.0
    probes: float = 0.0
    probes_plain: float = 0.0
    products: float = 0.0
    products_double: float = 0.0
    wide_fits: float = 0.0
    tables: float = 0.0
    tuned: float = 0.0
    shuffled: float = 0.0
    figures: int = 0
    note: str = ""

    def __add__(self, other: Work) -> Work:
        """Both together."""
        counts = {name: getattr(self, name) + getattr(other, name) for name in _COUNTS}
        return Work(**counts, note="; ".join(note for note in (self.note, other.note) if note))


_COUNTS = (
    "rows", "steps", "probes", "probes_plain", "products", "products_double", "wide_fits", "tables", "tuned",
    "shuffled", "figures",
)  # fmt: skip


def batches_of(items: float, size: int) -> int:
    """Batches of so many items."""
    return -(-int(items) // size)
