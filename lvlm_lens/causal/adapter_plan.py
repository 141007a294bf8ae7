"""What an adapter grid runs: its cells, each a configuration of the adapter's units, and how many forwards they take.

Nothing here needs weights: the units may be read off an adapter's file (:func:`units_in_file`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

from torch import nn

from ..errors import ModelError, SiteError, near_matches
from ..models.adapters import tensor_names
from ..models.anatomy import Anatomy
from .adapter_switches import IN_BLOCK, OFF, ON, ON_BUT_RANDOM, OUTSIDE, RANDOM, Config, Unit, Units, owners_of

SITES = ("adapter", "adapter.attn", "adapter.mlp")
SPANS = ("block", "from below", "from above", "window")
DIRECTIONS = ("denoise", "noise")


@dataclass(frozen=True)
class Cell:
    """A place in the grid (direction, site, block, span), which units it changes, and what configuration it means."""

    place: tuple[int, int, int, int]
    units: tuple[Unit, ...]
    config: Config


@dataclass(frozen=True)
class Plan:
    """A grid over the units of an adapter.

    Attributes:
        units: of the adapter; n_blocks: of the model.
        cells: every one that changes something; sites, spans: names along these axes; null: random changes a cell.
    """

    units: Units
    n_blocks: int
    cells: tuple[Cell, ...]
    sites: tuple[str, ...]
    spans: tuple[str, ...]
    null: int

    @classmethod
    def of(
        cls, units: Units, n_blocks: int, asked: Sequence[str], wanted: Sequence[str], window: int, null: int
    ) -> Plan:
        """The plan for some sites and spans, which :func:`check_names` knows.

        Raises:
            SiteError: the adapter has no layer at a site.
        """
        outside = [part for part in OUTSIDE if any(u.part == part and u.block < 0 for u in units.units)]
        names = (*asked, *(f"adapter.{part}" for part in outside))
        every: dict[str, Callable[[int], range]] = {
            "block": lambda block: range(block, block + 1),
            "from below": lambda block: range(block + 1),
            "from above": lambda block: range(block, n_blocks),
            "window": lambda block: range(block, block + window if block <= n_blocks - window else 0),
        }
        ranges = {f"window of {window}" if name == "window" else name: every[name] for name in wanted}
        found = []
        for (s, name), (p, within), block in product(enumerate(names), enumerate(ranges.values()), range(n_blocks)):
            part = name.partition(".")[2]
            if part in outside:
                chosen = tuple(u for u in units.units if u.part == part and u.block < 0) if block == p == 0 else ()
            else:
                parts = (part,) if part else IN_BLOCK
                chosen = tuple(u for u in units.units if u.block in within(block) and u.part in parts)
            for d in range(len(DIRECTIONS)) if chosen else ():
                config = units.config(OFF, chosen, ON) if d == 0 else units.config(ON, chosen, OFF)
                found.append(Cell((d, s, block, p), chosen, config))
        empty = [name for s, name in enumerate(names) if not any(cell.place[1] == s for cell in found)]
        if empty:
            has = ", ".join(sorted({u.part for u in units.units}))
            raise SiteError(f"the adapter has no layer at {', '.join(empty)}; it has {has}")
        return cls(units, n_blocks, tuple(found), names, tuple(ranges), null)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Length of each axis of the grid."""
        return len(DIRECTIONS), len(self.sites), self.n_blocks, len(self.spans)

    @cached_property
    def configs(self) -> list[Config]:
        """Every configuration once, the two ends first: cells of both directions may mean the same one."""
        ends = [self.units.config(OFF), self.units.config(ON)]
        return list(dict.fromkeys([*ends, *(cell.config for cell in self.cells)]))

    def drawn(self, cell: Cell) -> Config:
        """What a cell is held against: a random change in place of its own."""
        start, mode = ((OFF, RANDOM), (ON, ON_BUT_RANDOM))[cell.place[0]]
        return self.units.config(start, cell.units, mode)

    @property
    def forwards(self) -> int:
        """Forwards of each prompt: configurations and nulls."""
        return len(self.configs) + self.null * len(self.cells)

    def in_words(self, prompts: int, run: int) -> str:
        """Forwards and blocks in one line; ``run`` is the number of :meth:`blocks` that are run."""
        whole = self.forwards * self.n_blocks
        return f"{self.forwards} forwards of each of {prompts} prompts, {run} blocks in place of {whole}"

    def blocks(self, whole: bool = False) -> int:
        """Blocks that a prompt goes through in all forwards; with ``whole``, a forward that is run skips none."""
        every = [*self.configs, *(self.drawn(cell) for cell in self.cells for _ in range(self.null))]
        return sum(self.units.blocks_of(config, self.n_blocks, whole) for config in every)


def check_names(sites: Sequence[str], spans: Sequence[str]) -> None:
    """Raise :class:`SiteError` for a site or a span that adapter grids do not have."""
    for kind, given, known in (("site", sites, SITES), ("span", spans, SPANS)):
        for name in given:
            if name not in known:
                listed = f"{', '.join(known)}{near_matches(name, known)}"
                raise SiteError(f"{kind} {name!r} is none that an adapter grid has; write one of {listed}")


def units_in_file(model: nn.Module, anatomy: Anatomy, folder: str | Path) -> Units:
    """The units of an adapter, from the names in its file; the model may be empty.

    Raises:
        ModelError: no tensor of the file belongs to a module of the model.
    """
    modules = dict(model.named_modules())
    owners = owners_of(anatomy)
    found = set()
    for name in tensor_names(folder):
        parts = name.split(".")
        path = next((p for n in range(len(parts), 0, -1) if (p := ".".join(parts[:n])) in modules), None)
        if path is not None:
            found.add(owners.get(id(modules[path])) or Unit(-1, "rest"))
    if not found:
        raise ModelError(f"adapter {str(folder)!r} names no module of {type(model).__name__}")
    return Units(found)
