"""From a question about a model (sites, positions, windows) to the cells of a grid.

The position axis of a grid is a list of groups, each a name and a position specification.  ``per="span"`` makes
each term of a union one group, patched as a whole; ``per="position"`` makes each selected token a group of its own,
named as one would write it: ``question[-8:]`` gives ``question[-8]`` ... ``question[-1]``, counted from the end because
the slice is, so that requests of different length are aligned where their meaning is.  ``image_rows`` stands for one
span for each row of a picture's grid of tokens.  ``mean(question)`` is a span whose *mean* is patched: the difference
of the donor's mean and the recipient's own is added at every position of the recipient's span, so prompts with
unequally many tokens there can be compared; what single tokens carry beside the mean stays the recipient's.  [own]
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch

from ..activations.sites import BLOCK_SITES, Site, tap
from ..errors import DataError, SiteError, UsageError, near_matches
from ..interventions.cell import Cell, Write
from ..interventions.inherit import Inheritance
from ..interventions.recording import Recording
from ..models.anatomy import Anatomy
from ..models.positions import Atom, Layout, Positions

Direction = Literal["denoise", "noise"]
PER_HEAD = ("z", "q", "k", "v")
_MEAN = re.compile(r"mean\(([^()]+)\)")


@dataclass(frozen=True, slots=True)
class SiteAxis:
    """One entry of the site axis: a site's name and, where heads are patched apart, the head."""

    name: str
    head: int | None = None

    def __str__(self) -> str:
        return self.name if self.head is None else f"{self.name}.h{self.head}"

    def at(self, block: int) -> Site:
        """The site that is written for a block; the projector's output is what block 0 reads at the picture."""
        return Site("resid_pre", 0) if self.name == "image_features" else Site(self.name, block)


def site_axis(sites: str | Sequence[str], anatomy: Anatomy, heads: str = "all") -> list[SiteAxis]:
    """The site axis; raises :class:`SiteError` for a site that cannot be patched on this model."""
    names = [sites] if isinstance(sites, str) else list(sites)
    known = (*BLOCK_SITES, "image_features")
    axis: list[SiteAxis] = []
    for name in names:
        if name not in known:
            raise SiteError(
                f"site {name!r} cannot be patched; write one of {', '.join(known)}{near_matches(name, known)}"
            )
        if name == "image_features":
            if anatomy.vision is None:
                raise SiteError(f"family {anatomy.family.model_type!r} takes no pictures, so it has no image_features")
            axis.append(SiteAxis(name))
            continue
        for block in range(anatomy.n_blocks):
            tap(Site(name, block), anatomy)
        if name == "pattern":
            tap(Site("z", 0), anatomy)  # a pattern is written through what it gathers
        if heads == "each" and name in PER_HEAD:
            count = anatomy.n_heads if name in "zq" else anatomy.n_kv_heads
            axis += [SiteAxis(name, head) for head in range(count)]
        else:
            axis.append(SiteAxis(name))
    return axis


@dataclass(frozen=True)
class Group:
    """One entry of the position axis: its name, and how to find its columns in a prompt."""

    name: str
    spec: Positions
    member: int | None = None  # which of the selected positions, counted from the start (>= 0) or the end (< 0)
    mean: bool = False  # the mean over the span is patched, so that spans may differ in length

    def columns(self, layout: Layout) -> tuple[int, ...]:
        """Padded columns in one prompt; empty where the prompt has no such position."""
        try:
            found = tuple(int(i) for i in self.spec.indices(layout))
        except SiteError:
            if self.member is None:
                raise
            return ()
        if self.member is None:
            return found
        if not -len(found) <= self.member < len(found):
            return ()
        return (found[self.member],)


def position_groups(
    positions: str | Positions | Sequence[str] | Mapping[str, str], per: str, layouts: Sequence[Layout]
) -> list[Group]:
    """The position axis for the prompts at hand.

    Args:
        positions: a specification (``mean(...)`` around one patches the span's mean); several, one group each; or
            named ones.
        per: ``position`` or ``span``; several specifications are always spans.
        layouts: of all prompts, which decide how many groups ``position`` makes.
    """
    if per not in ("position", "span"):
        raise UsageError(f"per={per!r}; write 'position' or 'span'")
    if isinstance(positions, Mapping):
        return [replace(_one_spec(spec, layouts)[0], name=name) for name, spec in positions.items()]
    if not isinstance(positions, (str, Positions)):
        return [group for spec in positions for group in _one_spec(spec, layouts)]
    if isinstance(positions, str) and ("image_rows" in positions or _MEAN.search(positions)):
        return [group for term in positions.split("|") for group in _one_spec(term.strip(), layouts)]
    spec = Positions.parse(positions)
    if per == "span":
        return [Group(str(atom), Positions((atom,))) for atom in spec.atoms]
    groups: list[Group] = []
    single = max(len(layout.images) for layout in layouts) == 1
    taken: list[set[int]] = [set() for _ in layouts]
    for atom in spec.atoms:
        alone = Positions((atom,))
        counts = []
        for layout in layouts:
            try:
                counts.append(len(alone.indices(layout)))
            except SiteError:
                counts.append(0)
        if not max(counts):
            alone.indices(layouts[0])  # raises, naming the specification
        from_end = _counts_from_end(atom)
        for step in range(max(counts)):
            member = step - max(counts) if from_end else step
            group = Group(_member_name(atom, member, max(counts), single), alone, member)
            columns = [group.columns(layout) for layout in layouts]
            if all(not own or own[0] in done for own, done in zip(columns, taken, strict=True)):
                continue  # an earlier term of the union already names this token
            for own, done in zip(columns, taken, strict=True):
                done.update(own)
            groups.append(group)
    return groups


def _one_spec(spec: str, layouts: Sequence[Layout]) -> list[Group]:
    if spec == "image_rows":
        return image_rows(layouts)
    mean = _MEAN.fullmatch(spec.strip())
    return [Group(spec, Positions.parse(mean[1] if mean else spec), mean=mean is not None)]


def image_rows(layouts: Sequence[Layout]) -> list[Group]:
    """One span for each row of the first picture's square grid of tokens (a leading class token goes to row 0).

    Raises :class:`DataError` where pictures differ in their number of tokens or do not fill a square.
    """
    counts = {len(layout.images[0]) for layout in layouts if layout.images}
    if len(counts) != 1:
        raise DataError(f"image_rows needs pictures of one size; these have {sorted(counts)} tokens")
    count = counts.pop()
    side = math.isqrt(count)
    extra = count - side * side
    if extra > 1:
        raise DataError(f"{count} image tokens do not fill a square grid; name spans such as image[0][:24] instead")
    rows = [(0 if row == 0 else extra + row * side, extra + (row + 1) * side) for row in range(side)]
    return [Group(f"image row {row}", Positions.parse(f"image[0][{a}:{b}]")) for row, (a, b) in enumerate(rows)]


def _counts_from_end(atom: Atom) -> bool:
    cut = atom.subscripts[-1] if atom.subscripts else None
    return isinstance(cut, slice) and cut.start is not None and cut.start < 0


def _member_name(atom: Atom, member: int, count: int, single: bool) -> str:
    """The specification of one token of a term, as one would write it."""
    if count == 1:
        return str(atom)
    if not atom.subscripts or not isinstance(atom.subscripts[-1], slice):
        base = str(atom)
        if base == "image":  # image[7] would be the eighth picture
            base = "image[0]" if single else "image[:]"
        return f"{base}[{member}]"
    cut = atom.subscripts[-1]
    start, step = cut.start or 0, cut.step or 1
    if step < 0:
        return f"{atom}[{member}]"
    base = str(Atom(atom.name, atom.subscripts[:-1]))
    return f"{base}[{start + (member + count if member < 0 else member) * step}]"


def build_cell(
    axis: SiteAxis,
    blocks: Sequence[int],
    row: int,
    columns: tuple[int, ...],
    donor: Recording,
    donor_columns: tuple[int, ...],
    random_from: Recording | None = None,
    seed: int = 0,
    inheritance: Inheritance | None = None,
    donor_row: int | None = None,
    pool: Sequence[tuple[int, tuple[int, ...]]] = (),
    mean_in: Recording | None = None,
) -> Cell:
    """The cell that writes a donor's values into some blocks of a row.

    ``inheritance`` lets it take over the donor's prefix where the writes make the two equal.

    With ``random_from`` (the recording of the recipient itself) the change has the size of the real one
    at each position and a random direction instead, with the covariance of the states at ``pool`` (rows and columns of
    that recording) where it is given.  ``donor_row`` is the donor's row where it is another one.  With ``mean_in`` (the
    recording of the recipient too) only the mean over the columns is the donor's, and a random change is one and the
    same at all of them.
    """
    writes = []
    for block in [0] if axis.name == "image_features" else blocks:
        site = axis.at(block)
        take = partial(donor.take, site, row if donor_row is None else donor_row, donor_columns, axis.head)
        if mean_in is not None:
            take = partial(_with_mean_of, take, partial(mean_in.take, site, row, columns, axis.head))
        if random_from is not None:
            own = partial(random_from.take, site, row, columns, axis.head)
            states = [partial(random_from.take, site, other, some, axis.head) for other, some in pool]
            take = partial(_random_change, take, own, states, seed + block, mean_in is not None)
        writes.append(Write(site, columns, take, axis.head))
    shared = None
    if inheritance is not None and random_from is None and donor_row is None and mean_in is None:
        shared = inheritance.of(axis.name, row, columns, donor_columns)
    return Cell(row, tuple(writes), shared)


def _with_mean_of(donor: partial[torch.Tensor], own: partial[torch.Tensor]) -> torch.Tensor:
    new, old = donor().float().mean(0), own()  # [...], [P, ...]
    return (old.float() + (new - old.float().mean(0))).to(old.dtype)


def _random_change(
    donor: partial[torch.Tensor],
    own: partial[torch.Tensor],
    states: Sequence[partial[torch.Tensor]],
    seed: int,
    together: bool = False,
) -> torch.Tensor:
    new, old = donor(), own()  # [P, ...]
    difference = (new - old).float().flatten(1)
    generator = torch.Generator().manual_seed(seed)
    rows = 1 if together else len(difference)
    if states:
        seen = torch.cat([take().float().flatten(1) for take in states])  # [N, ...]
        weights = torch.randn(rows, len(seen), generator=generator).to(seen.device)
        noise = weights @ (seen - seen.mean(0))
    else:
        noise = torch.randn(rows, difference.shape[1], generator=generator).to(difference.device)
    noise = noise * (difference != 0)  # a pattern stays zero where attention cannot reach
    noise = noise / noise.norm(dim=-1, keepdim=True).clamp_min(1e-12) * difference.norm(dim=-1, keepdim=True)
    return old + noise.reshape(old.shape).to(old.dtype)
