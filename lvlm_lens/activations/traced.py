"""Reading sites through nnsight's tracing: a check on the hooks, and the road to models that run elsewhere (NDIF).

``capture_with_nnsight`` gives what ``capture`` gives.  What runs inside a trace names no function of this package, so
that the same block can be sent to a server that does not have it; positions are picked there, and only they come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from ..data import Sample
from ..errors import SiteError
from ..models.encode import Encoded
from ..models.loaded import LoadedModel
from ..models.positions import Positions
from .activations import Activations
from .capture import assemble, eager_blocks, gather_positions, reader
from .loop import run_batches
from .neighbours import to_nnsight
from .sites import Site, Tap, expand_sites, tap

_ORDER = ("resid_pre", "q", "k", "v", "z", "pattern", "attn_out", "resid_mid", "mlp_out", "resid_post")
Row = tuple[dict[Site, np.ndarray], np.ndarray, np.ndarray | None]
"""Arrays by site, which positions are real, and the logits where they are kept: of one sample, or stacked."""


def path_of(root: nn.Module, module: nn.Module) -> str:
    """Dotted name of a module inside another."""
    for name, found in root.named_modules():
        if found is module:
            return name
    raise SiteError(f"{type(module).__name__} is no part of the model")


def _rank(site: Site) -> tuple[int, int, int]:
    """Order of execution, in which nnsight wants values asked for."""
    if site.name == "vision_resid_post":
        return (0, site.block or 0, 0)
    whole = {"image_features": (1, 0, 0), "embed": (2, 0, 0), "final_norm": (4, 0, 0), "logits": (5, 0, 0)}
    return whole[site.name] if site.block is None else (3, site.block, _ORDER.index(site.name))


@dataclass(frozen=True)
class _Place:
    """How a trace reaches a site: module, its side, the part of a tuple, and whether positions are picked there."""

    path: str
    side: str
    part: int
    picked: bool

    @classmethod
    def of(cls, root: nn.Module, site: Site, found: Tap) -> Self:
        whole = site.name in ("image_features", "vision_resid_post", "pattern")
        side = "input" if found.side == "input" else "output"
        return cls(path_of(root, found.module), side, int(site.name == "pattern"), not whole)


def _trace(
    traced: Any, inputs: dict[str, Any], places: Sequence[_Place], index: torch.Tensor, remote: bool | str
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Values at the places, those that can be picked at ``index``, and the logits that the model gives."""
    wanted = [(place.path.split("."), place.side, place.part, place.picked) for place in places]
    kept: Any = None
    logits: Any = None
    with torch.inference_mode(), traced.trace(**inputs, **({"remote": remote} if remote else {})):
        found: Any = []
        for path, side, part, picked in wanted:
            at = traced
            for word in path:
                at = getattr(at, word)
            value = at.input if side == "input" else at.output
            if not isinstance(value, torch.Tensor):
                value = value.last_hidden_state if hasattr(value, "last_hidden_state") else value[part]
            if picked:
                value = value.gather(1, index.to(value.device)[..., None].expand(-1, -1, value.shape[-1]))
            found.append(value.cpu())
        kept = found.save()
        logits = traced.output.logits.cpu().save()
    return list(kept), logits


def _plain(value: torch.Tensor, tapped: Tap) -> torch.Tensor:
    """The tensor a hook would see: scaled as it is added to the residual, heads apart."""
    value = value if tapped.scale == 1.0 else value * tapped.scale
    return value if tapped.heads is None else value.unflatten(-1, (-1, tapped.head_dim or value.shape[-1]))


class TracedSites:
    """Sites of a model, and how a trace reads them at chosen positions.

    Raises :class:`SiteError` for sites that nnsight cannot see on this family (rows without a batch axis).
    """

    def __init__(
        self,
        model: LoadedModel,
        sites: str | Site | Iterable[str | Site],
        positions: str | Positions,
        logits: bool,
        dtype: torch.dtype,
    ) -> None:
        self.model, self.dtype, self.spec = model, dtype, Positions.parse(positions)
        self.wanted = sorted(expand_sites(sites, model.anatomy), key=_rank)
        self.taps = [(site, tap(site, model.anatomy)) for site in self.wanted if site.name != "logits"]
        flat = [str(site) for site, found in self.taps if found.flat_in is not None]
        if flat:
            raise SiteError(f"nnsight sees rows without a batch axis at {', '.join(flat[:3])}; use capture")
        self.places = [_Place.of(model.model, site, found) for site, found in self.taps]
        self.keep_logits = logits or any(site.name == "logits" for site in self.wanted)

    def read(self, traced: Any, encoded: Encoded, remote: bool | str = False) -> Row:
        """Run one batch; ``remote`` is nnsight's own argument (``True``: NDIF; ``"local"``: as there, but here)."""
        index, valid = gather_positions(encoded, self.spec)
        inputs = {**self.model.forward_inputs(encoded), "use_cache": False}
        if encoded.left_padded:
            inputs["logits_to_keep"] = self.model.keep_last(encoded.length)
        values, scores = _trace(traced, inputs, self.places, index, remote)
        store: dict[Site, list[torch.Tensor]] = {}
        already = torch.arange(index.shape[1]).expand_as(index)
        for (site, found), place, value in zip(self.taps, self.places, values, strict=True):
            reader(store, already if place.picked else index, self.dtype)(_plain(value, found), site)
        arrays = {site: pieces[0].float().numpy() for site, pieces in store.items()}
        if not self.keep_logits:
            return arrays, valid, None
        last = torch.tensor([-1 if encoded.left_padded else layout.last for layout in encoded.layouts])
        return arrays, valid, scores[torch.arange(len(encoded)), last].float().numpy()

    def assembled(self, model: LoadedModel, data: Sequence[Sample], rows: dict[int, Row]) -> Activations:
        """Rows by their number in the data, as one result."""
        return assemble(
            model,
            data,
            {number: row[0] for number, row in rows.items()},
            {number: row[1] for number, row in rows.items()},
            {number: row[2] for number, row in rows.items() if row[2] is not None},
            self.wanted,
            self.spec,
        )


def row_of(batch: Row, row: int) -> Row:
    """One sample of a batch."""
    arrays, valid, last = batch
    return {site: array[row] for site, array in arrays.items()}, valid[row], None if last is None else last[row]


def capture_with_nnsight(
    model: LoadedModel,
    data: Sequence[Sample],
    sites: str | Site | Iterable[str | Site] = "resid_post",
    positions: str | Positions = "last",
    *,
    logits: bool = False,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 32,
) -> Activations:
    """What :func:`~lvlm_lens.activations.capture` gives, captured by nnsight on a copy; arguments as there.

    Raises :class:`SiteError` for sites that nnsight cannot see on this family (rows without a batch axis).
    """
    wanted = TracedSites(model, sites, positions, logits, dtype)
    traced = to_nnsight(model, in_place=False)
    copied = LoadedModel(traced._module, model.processor or model.tokenizer, name=model.name)
    patterns = [site.block for site, _ in wanted.taps if site.name == "pattern" and site.block is not None]

    def work(encoded: Encoded) -> Row:
        with eager_blocks(copied, patterns):
            return wanted.read(traced, encoded)

    rows: dict[int, Row] = {}
    for numbers, batch in run_batches(model, data, work, batch_size):
        rows.update((number, row_of(batch, row)) for row, number in enumerate(numbers))
    return wanted.assembled(model, data, rows)
