"""Patching the last prompt token of a remote model.

The causal mask lets nothing read the last token but the last token itself, so a patch there needs no more of the donor
than its own last token, and every block can be a row of its own in one forward: row k is the recipient, patched at
block k.  These are plain forwards; the resuming engine of :func:`~lvlm_lens.causal.patch_grid` needs hooks of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from ..activations.sites import Site, tap
from ..activations.traced import Row, TracedSites, path_of
from ..causal.grid import PatchGrid
from ..causal.metrics import make_metric, numbers
from ..data import Pair, Sample
from ..errors import DataError, SiteError, UsageError
from ..models.encode import Encoded
from ..models.loaded import LoadedModel

SITES = ("resid_post", "attn_out", "mlp_out")

Places = Sequence[tuple[list[str], torch.Tensor]]
"""For each row the module that is written, as the words of its path, and the value ``[d]`` at the last token."""


class Server(Protocol):
    """What patching asks of a :class:`~.model.RemoteLVLM`."""

    name: str
    dtype: torch.dtype

    def ask(self, wanted: TracedSites, encoded: Encoded) -> Row:
        """What the sites of a plain forward hold."""

    def write(self, inputs: dict[str, Any], places: Places) -> torch.Tensor:
        """Logits float32 ``[row, vocab]`` of a forward in which each row is written at its place."""


def patch_last(
    remote: Server,
    skeleton: LoadedModel,
    pairs: Sequence[Pair],
    sites: str | Sequence[str],
    metric: Any,
    direction: str,
    rows: int,
) -> PatchGrid:
    """Every site x block at the last token, for many matched pairs.

    Args:
        remote, skeleton: the model, and its structure.
        pairs, metric, direction: as for :func:`~lvlm_lens.causal.patch_grid`.
        sites: any of :data:`SITES`.
        rows: blocks patched in one request, each in a row of its own.

    Returns:
        :class:`~lvlm_lens.causal.grid.PatchGrid` without nulls, its engine ``full``.

    Raises:
        SiteError: another site.
        DataError: no pairs.
        ModelError: the server cannot be asked, or refuses.
    """
    names = (sites,) if isinstance(sites, str) else tuple(sites)
    if unknown := [name for name in names if name not in SITES]:
        raise SiteError(f"{unknown[0]!r} cannot be patched on a server; write any of {', '.join(SITES)}")
    if direction not in ("denoise", "noise", "both"):
        raise UsageError(f"direction={direction!r}; write denoise, noise or both")
    if not len(pairs):
        raise DataError("no pairs were given; a data set's pairs() makes them where counterfactuals are named")
    directions = ("denoise", "noise") if direction == "both" else (direction,)
    wanted = TracedSites(skeleton, names, "last", True, torch.float32)
    measure = make_metric(metric, skeleton)  # type: ignore[arg-type]  # asks for the tokenizer alone
    blocks = range(skeleton.n_blocks)
    values = np.full((len(directions), len(names), len(blocks), 1, len(pairs)), np.nan)
    baseline = np.full((2, len(pairs)), np.nan)
    for n, pair in enumerate(pairs):
        sides = (pair.clean, pair.corrupted)
        read = [remote.ask(wanted, skeleton.encode(side)) for side in sides]
        logits = [torch.from_numpy(last) for _, _, last in read if last is not None]
        measure.prepare(*logits)
        baseline[:, n] = [numbers(measure, own, [0])[0] for own in logits]
        for d, way in enumerate(directions):
            donor, recipient = (read[0][0], sides[1]) if way == "denoise" else (read[1][0], sides[0])
            for s, name in enumerate(names):
                for start in range(0, len(blocks), rows):
                    some = blocks[start : start + rows]
                    found = _patched(remote, skeleton, recipient, name, some, donor)
                    values[d, s, list(some), 0, n] = numbers(measure, found, [0] * len(some))
    return PatchGrid(
        values,
        baseline[0],
        baseline[1],
        None,
        directions,
        names,
        tuple(blocks),
        ("last",),
        tuple((pair.clean.id, pair.corrupted.id) for pair in pairs),
        tuple(pair.group or pair.clean.id for pair in pairs),
        1,
        measure.name,
        "full",
        "plain forwards on a server, through nnsight",
        {"cells": 0, "max_abs_diff": None},
        {"model": remote.name, "dtype": str(remote.dtype).removeprefix("torch."), "positions": "last"},
        (),
    )


def _patched(
    remote: Server,
    skeleton: LoadedModel,
    recipient: Sample,
    name: str,
    blocks: Sequence[int],
    donor: dict[Site, np.ndarray],
) -> torch.Tensor:
    """Logits float32 ``[block, vocab]`` of the recipient, patched at one block a row."""
    encoded = skeleton.encode([recipient] * len(blocks))
    inputs = {
        **skeleton.forward_inputs(encoded), "use_cache": False, "logits_to_keep": skeleton.keep_last(encoded.length)
    }  # fmt: skip
    places = []
    for block in blocks:
        site = Site(name, block)
        found = tap(site, skeleton.anatomy)
        if found.side != "output" or found.whole is not None:
            raise SiteError(f"{site} of family {skeleton.anatomy.family.model_type!r} cannot be written on a server")
        value = torch.from_numpy(donor[site][0, 0]) / found.scale
        places.append((path_of(skeleton.model, found.module).split("."), value))
    return remote.write(inputs, places)


def write(traced: Any, inputs: dict[str, Any], places: Places, where: bool | str) -> torch.Tensor:
    """The forward of :meth:`Server.write`; its block names no function of this package: a server has none of it."""
    logits: Any = None
    with torch.inference_mode(), traced.trace(**inputs, remote=where):
        for row, (path, value) in enumerate(places):
            at = traced
            for word in path:
                at = getattr(at, word)
            written = at.output if isinstance(at.output, torch.Tensor) else at.output[0]
            written[row, -1] = value.to(written.device, written.dtype)
        logits = traced.output.logits[:, -1].float().cpu().save()
    return logits
