"""SASA's edit of one residual by another, its modes, its two readings, and its controls.

The published description, second-hand (an independent reimplementation, [3P]): for each token t,
``a_t = <H_s[t], H_f[t]> / max(|H_f[t]|^2, eps)`` and ``H_s[t] <- a_t H_f[t]``, ``eps = 1e-6``: the safety block's
residual becomes its own projection on the line of the fused block's.  The other reading projects
H_f on the line of H_s, ``<H_f, H_s> / |H_s|^2 * H_s``, which only rescales H_s.  Modes, positions and
controls are this project's ([own]).

What "the same as running the later blocks on H_f" means exactly: the next block's first norm is
scale-free, so its attention reads ``sign(a_t) H_f`` whatever ``|a_t|`` is.  The residual that attention's
output is added to is ``a_t H_f``, though, so from that sum on the two runs part unless ``a_t = 1``.  The
control ``rerun`` (``a_t`` set to 1) measures by how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from ..data import Sample
from ..errors import DataError, ModelError, SiteError, UsageError, near_matches
from ..interventions.recording import Recording
from ..models.encode import Encoded
from ..models.positions import Layout, Positions

EPS = 1e-6

Mode = Literal["replace", "residual", "interpolate"]
Reading = Literal["onto_fused", "onto_safety"]
Control = Literal["none", "complement", "rerun", "norm_matched", "other_sample", "random"]

CONTROLS: dict[str, str] = {
    "none": "SASA itself",
    "complement": "H_s without its projection: is the projected component necessary?",
    "rerun": "H_f itself, a_t = 1: the later blocks run again on the fused state",
    "norm_matched": "the direction of H_f with the norm of H_s",
    "other_sample": "H_f of another sample (of another group where there is one)",
    "random": "one random direction in place of every H_f[t]",
}
"""What each value of ``control`` puts in place of the projection."""


@dataclass(frozen=True)
class Cell:
    """One way of editing: which blocks, and how.

    Attributes:
        safety, fused: blocks s and f, ``s <= f``.
        mode: ``replace`` H_s by the projection P, ``residual`` H_s + strength * P, or
            ``interpolate`` (1 - strength) * H_s + strength * P.
        strength: see ``mode``; unused by ``replace``.
        positions: which tokens are edited, in the position language.
        sink: also the attention sink, taken to be each row's first attended token.
        projection: ``onto_fused`` (published reading) or ``onto_safety``.
        control: a key of :data:`CONTROLS`.
        seed: of the random direction.
    """

    safety: int
    fused: int
    mode: Mode = "replace"
    strength: float = 1.0
    positions: str = "all"
    sink: bool = True
    projection: Reading = "onto_fused"
    control: Control = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in (("mode", Mode), ("projection", Reading), ("control", Control)):
            value, known = getattr(self, name), get_args(kind)
            if value not in known:
                raise UsageError(
                    f"{name} is {value!r}; it is one of {', '.join(known)}{near_matches(str(value), known)}"
                )
        if self.safety > self.fused:
            raise UsageError(
                f"the safety block {self.safety} stands after the fused block {self.fused}; SASA carries a later "
                "block's state back to an earlier one, so give safety_block < fused_block"
            )
        if not np.isfinite(self.strength):
            raise UsageError(f"strength is {self.strength}; give a finite number")
        Positions.parse(self.positions)


def position_mask(layouts: Sequence[Layout], positions: str, sink: bool) -> torch.Tensor:
    """Bool ``[batch, position]``: which tokens are edited."""
    spec = Positions.parse(positions)
    mask = torch.zeros(len(layouts), layouts[0].length, dtype=torch.bool)
    for row, layout in enumerate(layouts):
        mask[row, torch.from_numpy(spec.indices(layout))] = True
        if not sink:
            mask[row, layout.attended[0]] = False
    return mask


def project(h_s: torch.Tensor, h_f: torch.Tensor, reading: Reading = "onto_fused") -> tuple[torch.Tensor, torch.Tensor]:
    """Projection ``[..., d]`` and coefficients ``a [...]``, both float32.

    ``onto_fused``: H_s on the line of H_f; ``onto_safety``: H_f on the line of H_s.
    """
    onto, of = (h_f.float(), h_s.float()) if reading == "onto_fused" else (h_s.float(), h_f.float())
    a = (of * onto).sum(-1) / (onto * onto).sum(-1).clamp(min=EPS)
    return a[..., None] * onto, a


@dataclass(frozen=True)
class Edit:
    """The edited residual ``hidden [batch, position, d]`` and counts over edited tokens."""

    hidden: torch.Tensor
    tokens: int
    negative: int


def edit(rec: Recording, encoded: Encoded, cell: Cell) -> Edit:
    """The residual to stand after ``cell.safety``; the recording kept what left both blocks.

    Raises:
        SiteError: a block never ran.
        ModelError: the family keeps several residual streams, so that there is no ``H_s`` to project.
        UsageError: the family computes a block at the last tokens only.
        DataError: the control ``other_sample`` in a batch of one.
    """
    for block in (cell.safety, cell.fused):
        if block not in rec.left:
            raise SiteError(f"block {block} did not run in this forward, so its output cannot be projected")
        if rec.left[block].ndim != 3:
            raise ModelError(
                f"this model keeps several residual streams (block output of shape {tuple(rec.left[block].shape)}); "
                "projecting one block's residual on another's is not defined there"
            )
        if rec.left[block].shape[1] != rec.length:
            raise UsageError(
                f"this model computes block {block} only at the last tokens of a prompt, so there is no state to "
                "project at the others; choose earlier blocks"
            )
    h_s = rec.left[cell.safety]  # [batch, position, d]
    h_f = rec.left[cell.fused].to(h_s.device)
    mask = position_mask(encoded.layouts, cell.positions, cell.sink).to(h_s.device)
    if cell.control == "other_sample":
        h_f, found = borrowed(h_f, encoded.layouts, encoded.samples)
        mask &= found.to(mask.device)
    elif cell.control == "random":
        generator = torch.Generator().manual_seed(cell.seed)
        direction = torch.randn(h_f.shape[-1], generator=generator).to(h_f.device)
        h_f = direction.expand_as(h_f)
    projected, a = project(h_s, h_f, cell.projection)
    plain = h_s.float()
    if cell.control == "rerun":
        projected = h_f.float()
    elif cell.control == "norm_matched":
        unit = torch.nn.functional.normalize(h_f.float(), dim=-1, eps=EPS)
        projected = unit * plain.norm(dim=-1, keepdim=True)
    if cell.control == "complement":
        new = plain - projected
    elif cell.mode == "replace":
        new = projected
    elif cell.mode == "residual":
        new = plain + cell.strength * projected
    else:
        new = (1.0 - cell.strength) * plain + cell.strength * projected
    hidden = torch.where(mask[..., None], new.to(h_s.dtype), h_s)
    return Edit(hidden, int(mask.sum()), int((mask & (a < 0)).sum()))


def donors(samples: Sequence[Sample]) -> list[int]:
    """For each row another row, of another group where there is one, far from it in the batch's order."""
    n = len(samples)
    if n < 2:
        raise DataError("the control 'other_sample' needs at least two samples with equally many pictures")
    chosen = []
    for row, sample in enumerate(samples):
        order = [(row + n // 2 + step) % n for step in range(n)]
        others = [j for j in order if j != row]
        chosen.append(next((j for j in others if samples[j].group != sample.group), others[0]))
    return chosen


def borrowed(
    h_f: torch.Tensor, layouts: Sequence[Layout], samples: Sequence[Sample]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Another sample's states, token by token: image tokens in order, other tokens counted from the end.

    Returns the states ``[batch, position, d]`` and a mask of the tokens that have a counterpart.
    """
    source = torch.zeros(h_f.shape[:2], dtype=torch.long)
    found = torch.zeros(h_f.shape[:2], dtype=torch.bool)
    choice = donors(samples)
    for row, donor in enumerate(choice):
        for part in ("image", "text"):
            mine, theirs = layouts[row].part(part), layouts[donor].part(part)
            mine, theirs = (mine, theirs) if part == "image" else (mine[::-1], theirs[::-1])
            for to, at in zip(mine, theirs, strict=False):
                source[row, to], found[row, to] = at, True
    rows = torch.tensor(choice)[:, None].expand_as(source)
    return h_f[rows.to(h_f.device), source.to(h_f.device)], found
