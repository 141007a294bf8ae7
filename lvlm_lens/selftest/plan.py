"""What is decided before a constructed model is built: the answer, and everything that should not matter.

A :class:`Plan` holds the three blocks that a locator has to return and the nuisances around them.  It is drawn
from a seed; no locator ever sees it.

Definition of the truth.  Every item carries two hidden facts, each a product (an exclusive or) of two bits, so that
no linear reading of the input can know them:

* ``p``, danger in one modality: the product of two words that never stand side by side, or of two patches;
* ``q``, danger in the conjunction: the product of one bit of the picture and one bit of the words.

An item is harmful when ``p`` or ``q`` holds.  The model computes ``p`` in block ``perceive``, ``q`` in block ``fuse``
and raises the refusal token's logit with both in block ``express``, all at the last position:

* **perception** (harm against no harm, all items) begins at ``perceive``: three pairs of four are decided by ``p``,
  so that there, and not at ``fuse``, the curve passes half of its height, whichever comes first;
* **semantics** (the same over items in which neither picture nor words are unsafe by themselves, where harm is
  ``q``) begins at ``fuse``;
* **expression** (the lens's refusal log-odds) begins at ``express``.

With ``gradual`` an eighth of each quantity is written one block early and a quarter one block late; under Gaussian
noise of the sizes in :data:`SEPARATIONS` the population curve still passes half of its height in the stated block.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

SEPARATIONS = (1.5, 2.5, 4.0)
"""Distance of the two means along a written direction, in standard deviations of the nuisance there."""

KINDS = ("all", "reversed", "tied", "no_semantics", "no_expression", "nothing")
"""``reversed``: semantics before perception; ``tied``: both in one block; ``nothing``: harm is nowhere."""


@dataclass(frozen=True)
class Plan:
    """One constructed model and its data.

    Attributes:
        seed: of weights and data; kind: one of :data:`KINDS`.
        depth, width: blocks and residual width.
        perceive, fuse, express: the true blocks, ``None`` for what the model does not have.
        move_text, move_image: blocks in which attention brings the bits to the last position.
        harm_from: ``text`` or ``image``, where the two bits of ``p`` are.
        separation: see :data:`SEPARATIONS`; distractor: standard deviation of three directions that vary with the
            item and not with the label, in units of the nuisance.
        cue: ``text``, ``image`` or ``None``: a modality that holds a spurious cue, right in 70 % of items.
        gradual: whether each quantity is written over three blocks.
    """

    seed: int
    kind: str
    depth: int
    width: int
    perceive: int | None
    fuse: int | None
    express: int | None
    move_text: int
    move_image: int
    harm_from: str
    separation: float
    distractor: float
    cue: str | None
    gradual: bool

    @property
    def gap(self) -> int | None:
        """Blocks from perception to semantics, ``None`` where one is absent."""
        return None if self.perceive is None or self.fuse is None else self.fuse - self.perceive

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return asdict(self)


def draw_plan(seed: int, kind: str | None = None, gap: int | None = None) -> Plan:
    """A plan from a seed; ``kind`` and ``gap`` (blocks from perception to semantics) may be fixed."""
    rng = np.random.default_rng((17, seed))
    kind = kind or str(rng.choice(KINDS))
    depth, width = int(rng.choice([8, 10, 12])), int(rng.choice([40, 56, 80]))
    move = rng.integers(0, 3, 2)
    first = int(rng.integers(max(move) + 1, depth - 4))
    drawn = int(rng.integers(1, depth - 1 - first))
    apart = drawn if gap is None else min(gap, depth - 2 - first)
    apart = 0 if kind == "tied" else apart
    perceive, fuse = (first + apart, first) if kind == "reversed" else (first, first + apart)
    express = int(rng.integers(first + apart + 1, depth))
    has = {
        "no_semantics": (True, False, True),
        "no_expression": (True, True, False),
        "nothing": (False, False, False),
    }.get(kind, (True, True, True))
    return Plan(
        seed=seed,
        kind=kind,
        depth=depth,
        width=width,
        perceive=perceive if has[0] else None,
        fuse=fuse if has[1] else None,
        express=express if has[2] else None,
        move_text=int(move[0]),
        move_image=int(move[1]),
        harm_from=str(rng.choice(["text", "image"])),
        separation=float(rng.choice(SEPARATIONS)),
        distractor=float(rng.choice([2.0, 4.0])),
        cue=[None, "text", "image"][int(rng.integers(3))],
        gradual=bool(rng.integers(2)),
    )
