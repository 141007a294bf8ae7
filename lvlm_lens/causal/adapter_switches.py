"""An adapter, part by part, behind switches.

PEFT can switch an adapter off as a whole.  Here each of its layers belongs to a *unit*: the attention or the MLP of
one block, what else stands in a block, the vision tower, the projector, or the rest (embedding, head).  A
*configuration* names a mode for every unit:

* ``off``: the layer is the base model's, bit for bit (PEFT's own ``enable_adapters(False)``; a scale of 0 would leave
  the magnitudes of DoRA and the factors of IA3 behind);
* ``on``: as trained;
* ``random``: LoRA's ``B`` with its rows in random order and with random signs.  It reads what the trained layer reads
  and writes a vector of exactly the same length for every token, elsewhere;
* ``on_but_random``: ``B`` minus that one.  Switching a layer off changes what it writes by ``-B A x``; this changes it
  by a vector of the same length in a random direction.  So the last two are the nulls of switching on and off.  [own]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ModelError, UsageError
from ..lens import LVLM
from ..models.adapters import AdapterRecord, attach
from ..models.anatomy import Anatomy
from ..models.families import submodule

IN_BLOCK = ("attn", "mlp", "other")
OUTSIDE = ("vision", "projector", "rest")
OFF, ON, RANDOM, ON_BUT_RANDOM = "off", "on", "random", "on_but_random"
Config = tuple[str, ...]
"""A mode for each unit of :attr:`Switches.units`."""


@dataclass(frozen=True, order=True)
class Unit:
    """What is switched together: ``part`` of a block, or one of :data:`OUTSIDE` with block -1."""

    block: int
    part: str


class Units:
    """The units of an adapter, and what configurations of them mean; no layer is needed for that.

    Attributes:
        units: in order of depth, those outside the blocks first.
    """

    def __init__(self, units: Iterable[Unit]) -> None:
        self.units: tuple[Unit, ...] = tuple(sorted(units))

    def config(self, base: str, changed: Sequence[Unit] = (), to: str = "") -> Config:
        """Every unit in mode ``base``, those of ``changed`` in mode ``to``."""
        among = set(changed)
        return tuple(to if unit in among else base for unit in self.units)

    def entry(self, one: Config, other: Config) -> int:
        """First block whose input the same prompt may enter differently with: -1 for the model's own input.

        Two configurations that are equal give ``10**9``.
        """
        return min((u.block for u, a, b in zip(self.units, one, other, strict=True) if a != b), default=10**9)

    def outside(self, config: Config) -> Config:
        """The modes of the units outside the blocks: what decides the picture's features."""
        return tuple(mode for unit, mode in zip(self.units, config, strict=True) if unit.block < 0)

    def blocks_of(self, config: Config, n_blocks: int, whole: bool = False) -> int:
        """How many blocks a forward of ``config`` runs, once both ends are recorded; ``whole``: never skips."""
        entry = max(self.entry(config, self.config(mode)) for mode in (OFF, ON))
        if entry >= n_blocks:
            return 0
        return n_blocks if whole or entry < 0 else n_blocks - entry


class Switches(Units):
    """The switches of one attached adapter.

    Args:
        model: the model whose modules now hold the adapter's layers.
        name: the adapter's name in PEFT.

    Attributes:
        layers: of each unit.

    Raises:
        ModelError: the model holds no layer of an adapter.
    """

    def __init__(self, model: LVLM, name: str = "default") -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import AuxiliaryTrainingWrapper

        self.name = name
        owners = owners_of(model.anatomy)
        found: dict[Unit, list[Any]] = {}
        for module in model.model.modules():
            if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
                base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
                unit = owners.get(id(module)) or owners.get(id(base)) or Unit(-1, "rest")
                found.setdefault(unit, []).append(module)
        if not found:
            raise ModelError("the model holds no layer of an adapter")
        super().__init__(found)
        self.layers = [found[unit] for unit in self.units]
        self._now = self.config(ON)
        self._trained: dict[int, torch.Tensor] = {}  # id of a layer -> its own B while another one stands there
        self._random: dict[int, torch.Tensor] = {}

    def apply(self, config: Config) -> None:
        """Bring every unit into its mode; the layers of units that keep theirs are not touched."""
        for layers, mode, now in zip(self.layers, config, self._now, strict=True):
            if mode != now:
                for layer in layers:
                    self._switch(layer, mode)
        self._now = config

    def draw(self, seed: int) -> None:
        """Draw new random directions for the two random modes.

        Raises:
            UsageError: a layer is no plain LoRA, so nothing of its size can be drawn.
        """
        self.apply(self.config(ON))
        generator = torch.Generator().manual_seed(seed)
        for layer in (layer for layers in self.layers for layer in layers):
            b = self._b(layer).weight.data
            order = torch.randperm(len(b), generator=generator)
            signs = torch.randint(0, 2, (len(b),), generator=generator) * 2 - 1
            shape = (-1, *[1] * (b.ndim - 1))
            self._random[id(layer)] = b[order.to(b.device)] * signs.to(b).reshape(shape)

    def _b(self, layer: Any) -> Any:
        matrices = dict(getattr(layer, "lora_B", {}))
        found = matrices.get(self.name)
        if found is None or found.bias is not None or getattr(layer, "use_dora", {}).get(self.name):
            raise UsageError(
                f"{type(layer).__name__} of the adapter is no plain LoRA, so no random change of its size can be "
                "drawn; write null=0"
            )
        return found

    def _switch(self, layer: Any, mode: str) -> None:
        if mode in (RANDOM, ON_BUT_RANDOM):
            weight = self._b(layer).weight
            own = self._trained.setdefault(id(layer), weight.data)
            drawn = self._random[id(layer)]
            weight.data = drawn if mode == RANDOM else own - drawn
        elif id(layer) in self._trained:
            self._b(layer).weight.data = self._trained.pop(id(layer))
        layer.enable_adapters(mode != OFF)


def owners_of(anatomy: Anatomy) -> dict[int, Unit]:
    """Which unit a module belongs to, by its identity."""
    family, owners = anatomy.family, {}
    for part, root in (
        ("vision", anatomy.vision),
        ("projector", anatomy.projector),
    ):
        if root is not None:
            owners.update({id(module): Unit(-1, part) for module in root.modules()})
    for number, block in enumerate(anatomy.blocks):
        owners.update({id(module): Unit(number, "other") for module in block.modules()})
        for part, path in (("mlp", family.mlp), ("attn", family.other_attn), ("attn", family.attn)):
            root = submodule(block, path) if path else None
            owners.update({id(module): Unit(number, part) for module in (root.modules() if root is not None else ())})
    return owners


@contextmanager
def switchable(model: LVLM, adapter: str | Path) -> Iterator[tuple[Any, AdapterRecord]]:
    """Inside, the model holds the adapter: PEFT's wrapper and the record.  Afterwards its own layers are back.

    Raises:
        UsageError: the model was loaded with an adapter already.
    """
    if model.adapter is not None:
        raise UsageError(
            f"model {model.name!r} was loaded with an adapter; load the base without adapter= and give the adapter here"
        )
    wrapped, record = attach(model.model, adapter, fold_head=False)
    try:
        yield wrapped, record
    finally:
        wrapped.unload()
        nn.Module.eval(model.model)
