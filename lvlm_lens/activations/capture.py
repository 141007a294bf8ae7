"""Reading activations: forwards over a data set that keep only what was asked for.

Each batch is encoded by the checkpoint's own processor, run once with the unembedding at the last
position only, and each site's hook gathers the chosen positions and copies them out.  Attention
keeps the model's own kernel unless patterns are asked for, and eager attention is then used in
the blocks that were asked for and no others.  An out-of-memory error halves the batch and the
work goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import numpy as np
import torch

from ..data import Sample
from ..errors import SiteError, UsageError
from ..models.encode import Encoded
from ..models.loaded import LoadedModel
from ..models.positions import Positions
from .activations import Activations
from .features import FeatureCache
from .gather import Picker
from .hooks import HookFunction, attached
from .loop import OnError, Progress, run_batches
from .masks import eager
from .reduce import Reduction
from .sites import Site, Tap, expand_sites, tap


def gather_positions(encoded: Encoded, positions: Positions) -> tuple[torch.Tensor, np.ndarray]:
    """Indices int64 ``[batch, P]`` of the chosen positions and a bool mask of the real ones.

    Rows that select fewer than the widest repeat their last index, with the mask False.
    """
    chosen = [positions.indices(layout) for layout in encoded.layouts]
    width = max(len(indices) for indices in chosen)
    index = np.zeros((len(chosen), width), dtype=np.int64)
    valid = np.zeros((len(chosen), width), dtype=bool)
    for row, indices in enumerate(chosen):
        index[row, : len(indices)] = indices
        index[row, len(indices) :] = indices[-1]
        valid[row, : len(indices)] = True
    return torch.from_numpy(index), valid


@contextmanager
def eager_blocks(model: LoadedModel, blocks: Iterable[int]) -> Iterator[None]:
    """Use eager attention in some blocks only, so that they return their attention pattern."""
    with ExitStack() as stack:
        for block in sorted(set(blocks)):
            stack.enter_context(eager(tap(Site("pattern", block), model.anatomy).module))
        yield


def reader(
    store: dict[Site, list[torch.Tensor]],
    index: torch.Tensor,
    dtype: torch.dtype,
    reduction: Reduction | None = None,
    valid: np.ndarray | None = None,
) -> HookFunction:
    """A hook that keeps the chosen positions of a site, on the CPU, in ``dtype``, reduced where asked for."""
    pick = Picker(index)

    def read(value: torch.Tensor, site: Site) -> None:
        if site.name in ("image_features", "vision_resid_post"):
            store.setdefault(site, []).append(value.detach().to("cpu", dtype, copy=True))
            return
        if site.name == "pattern":  # [batch, heads, query, key] -> [batch, P, heads, key]
            value = value.transpose(1, 2)
        if reduction is not None and reduction.active and valid is not None:
            small = reduction(value, index, valid, site)
            store.setdefault(site, []).append(small.detach().to("cpu", dtype, copy=True))
            return
        store.setdefault(site, []).append(pick(value, dtype))

    return read


def capture(
    model: LoadedModel,
    data: Sequence[Sample],
    sites: str | Site | Iterable[str | Site] = "resid_post",
    positions: str | Positions = "last",
    *,
    logits: bool = False,
    dtype: torch.dtype = torch.float32,
    reduce: Literal["mean"] | None = None,
    directions: torch.Tensor | None = None,
    batch_size: int = 32,
    edits: Sequence[tuple[Site, HookFunction]] = (),
    on_error: OnError | None = None,
    progress: Progress | None = None,
) -> Activations:
    """Run the model over samples and keep chosen sites at chosen positions.

    Args:
        model: the model.
        data: samples, with or without pictures; image-free and image rows run in batches of their own.
        sites: see :mod:`lvlm_lens.activations.sites`.
        positions: see :mod:`lvlm_lens.models.positions`.
        logits: keep the logits of the last prompt token too, float32 ``[sample, vocab]``.
        dtype: of the copies kept (numpy has no bfloat16: such copies are widened to float32).
        reduce: ``"mean"`` keeps the mean over the chosen positions only.
        directions: ``[k, d]``: keep only the inner products with these, ``[sample, position, k]``; both are
            computed before anything is copied (:mod:`lvlm_lens.activations.reduce`).
        batch_size: rows per forward; halved, with the work going on, when memory runs out.
        edits: ``(site, function)`` applied in every forward, before the readings.
        on_error: called for a sample that cannot be encoded (a broken picture, say), which is then
            left out; without it the error is raised.
        progress: called after each batch.

    Returns:
        :class:`Activations` in the order of ``data``, less the samples left out.

    Raises:
        SiteError: unknown site or position, or a hook that did not fire.
        DataError: no sample could be used.
    """
    wanted = expand_sites(sites, model.anatomy)
    spec = Positions.parse(positions)
    taps = [(site, tap(site, model.anatomy)) for site in wanted if site.name != "logits"]
    edit_taps = [(site, tap(site, model.anatomy), function) for site, function in edits]
    keep_logits = logits or any(site.name == "logits" for site in wanted)
    reduction = Reduction(reduce, directions)
    rows: dict[int, dict[Site, np.ndarray]] = {}
    masks: dict[int, np.ndarray] = {}
    heads: dict[int, np.ndarray] = {}

    def work(encoded: Encoded) -> tuple[dict[Site, np.ndarray], np.ndarray, np.ndarray | None]:
        return _forward(model, encoded, taps, edit_taps, spec, dtype, keep_logits, reduction)

    features = FeatureCache.for_capture(model, data, [*wanted, *(site for site, _ in edits)])
    for batch, (stored, valid, last) in run_batches(model, data, work, batch_size, on_error, progress, features):
        for row, number in enumerate(batch):
            rows[number] = {site: array[row] for site, array in stored.items()}
            masks[number] = valid[row]
            if last is not None:
                heads[number] = last[row]
    return assemble(model, data, rows, masks, heads, wanted, spec)


@torch.inference_mode()
def _forward(
    model: LoadedModel,
    encoded: Encoded,
    taps: list[tuple[Site, Tap]],
    edits: list[tuple[Site, Tap, HookFunction]],
    spec: Positions,
    dtype: torch.dtype,
    keep_logits: bool,
    reduction: Reduction,
) -> tuple[dict[Site, np.ndarray], np.ndarray, np.ndarray | None]:
    index, valid = gather_positions(encoded, spec)
    store: dict[Site, list[torch.Tensor]] = {}
    read = reader(store, index, dtype, reduction, valid)
    pattern_blocks = [site.block for site, _ in taps if site.name == "pattern" and site.block is not None]
    with eager_blocks(model, pattern_blocks), attached([*edits, *((site, t, read) for site, t in taps)]):
        last = model.logits(encoded)
    arrays: dict[Site, np.ndarray] = {}
    for site, _ in taps:
        pieces = store[site]
        if len(pieces) != 1:
            raise SiteError(f"{site} fired {len(pieces)} times in one forward; its rows cannot be told apart")
        tensor = pieces[0]
        arrays[site] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return arrays, reduction.valid(valid), last.cpu().numpy() if keep_logits else None


def assemble(
    model: LoadedModel,
    data: Sequence[Sample],
    rows: dict[int, dict[Site, np.ndarray]],
    masks: dict[int, np.ndarray],
    heads: dict[int, np.ndarray],
    wanted: list[Site],
    spec: Positions,
) -> Activations:
    """Stack rows in the order of the data, padding ragged position axes with NaN."""
    order = sorted(rows)
    width = max(len(masks[number]) for number in order)
    valid = np.zeros((len(order), width), dtype=bool)
    for row, number in enumerate(order):
        valid[row, : len(masks[number])] = masks[number]
    arrays: dict[Site, np.ndarray] = {}
    for site in wanted:
        if site.name == "logits":
            continue
        pieces = [rows[number][site] for number in order]
        if site.name == "pattern":
            raise_width = max(piece.shape[-1] for piece in pieces)
            # keys are right-aligned, as under left padding: the last key is the last token
            pieces = [
                np.pad(piece, [(0, 0)] * (piece.ndim - 1) + [(raise_width - piece.shape[-1], 0)]) for piece in pieces
            ]
        first = pieces[0]
        if site.name in ("image_features", "vision_resid_post"):
            if len({piece.shape for piece in pieces}) != 1:
                raise SiteError(f"{site} has a different size for each picture; capture such samples one by one")
            arrays[site] = np.stack(pieces)
            continue
        stacked = np.full((len(order), width, *first.shape[1:]), np.nan, dtype=first.dtype)
        for row, piece in enumerate(pieces):
            real = int(valid[row].sum())
            stacked[row, :real] = piece[:real]
        arrays[site] = stacked
    samples = tuple(data[number] for number in order)
    logits = np.stack([heads[number] for number in order]) if heads else None
    return Activations(samples, spec, arrays, valid, logits, {"model": model.name})


def edited_logits(model: LoadedModel, encoded: Encoded, edits: Sequence[tuple[Site, HookFunction]]) -> torch.Tensor:
    """Last-token logits float32 ``[batch, vocab]`` of one forward with edits in place."""
    if not edits:
        raise UsageError("no edits were given")
    with attached([(site, tap(site, model.anatomy), function) for site, function in edits]):
        return model.logits(encoded)
