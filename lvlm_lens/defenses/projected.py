"""A model whose every forward is SASA's second pass, so that any analysis can be run on the projected network.

Inside :func:`projected` a whole forward first runs the plain network, projects the fused block's state onto the
safety block's, and then runs the network again with that state after the safety block.  Hooks of whoever looks (a
patch, say) act in both passes, because the projected network *is* both passes: a state patched below the
safety block reaches the answer through what it does to both blocks.  [own]
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..activations import Site, attached, tap
from ..errors import UsageError
from ..lens import LVLM
from ..models.encode import Encoded
from .projection import Cell, edit
from .second_pass import first_pass


class _Projected(LVLM):
    """A view of a model that remembers the batch about to be run: positions are read off it."""

    encoded: Encoded | None = None
    ids: torch.Tensor | None = None

    def forward_inputs(self, encoded: Encoded) -> dict[str, Any]:
        inputs = super().forward_inputs(encoded)
        self.encoded, self.ids = encoded, inputs["input_ids"]
        return inputs


@contextmanager
def projected(model: LVLM, cell: Cell) -> Iterator[LVLM]:
    """A view of ``model`` on which every forward of an encoded batch is the second pass of ``cell``.

    The view shares its weights with ``model``, which computes as ever when the context is left; do not use ``model``
    itself inside.  A capture is refused there, since every site fires twice; :meth:`~.sasa.SASA.capture` reads pass 2.

    Raises:
        UsageError: the network was called with inputs that did not come from the view, as it is in a generation.
    """
    view = copy.copy(model)
    view.__class__ = _Projected
    assert isinstance(view, _Projected)
    site = Site("resid_post", cell.safety)
    running = False
    hidden: torch.Tensor | None = None

    def entering(module: Any, args: Any, kwargs: Any) -> None:
        nonlocal running, hidden
        if running:
            return
        if view.encoded is None or kwargs.get("input_ids") is not view.ids:
            raise UsageError("inside projected(), run batches that the projected view has encoded")
        running = True
        try:
            hidden = edit(first_pass(model, view.encoded, {cell.safety, cell.fused}), cell).hidden
        finally:
            running = False

    def replaced(value: torch.Tensor, where: Site) -> torch.Tensor:
        if running or hidden is None or hidden.shape != value.shape:
            return value
        return hidden.to(value)

    handle = model.model.register_forward_pre_hook(entering, with_kwargs=True)
    try:
        with attached([(site, tap(site, model.anatomy), replaced)]):
            yield view
    finally:
        handle.remove()
