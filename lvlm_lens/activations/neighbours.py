"""The neighbours: TransformerLens and nnsight on the same weights, and nnsight as a second way to capture.

``to_transformer_lens`` hands back a ``TransformerBridge`` and ``to_nnsight`` an ``NNsight`` around the
model.  Both instrument the modules that they are given, so they get a copy unless told otherwise.

``capture_with_nnsight`` gives what ``capture`` gives, read through nnsight's tracing; it is the road
to models that run elsewhere (NDIF), and a check on the hooks.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data import Sample
from ..errors import ModelError, SiteError
from ..models.encode import Encoded
from ..models.loaded import LoadedModel
from ..models.positions import Positions
from .activations import Activations
from .capture import assemble, eager_blocks, gather_positions, reader
from .loop import run_batches
from .sites import Site, Tap, expand_sites, tap

_ORDER = ("resid_pre", "q", "k", "v", "z", "pattern", "attn_out", "resid_mid", "mlp_out", "resid_post")


def to_transformer_lens(model: LoadedModel) -> Any:
    """A ``TransformerBridge`` on a copy of the weights; pictures go in as ``pixel_values=`` and the like.

    Raises :class:`ModelError` for a family that TransformerLens does not have.
    """
    from transformer_lens.model_bridge.sources.transformers import boot
    from transformers import AutoTokenizer

    owner = model.processor if model.processor is not None else model.tokenizer
    inner = copy.deepcopy(model.model)
    inner.config.architectures = [type(model.model).__name__]
    with tempfile.TemporaryDirectory() as folder:  # it reads processor and tokenizer from their place on disk
        inner.config.save_pretrained(folder)
        owner.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        try:
            return boot(folder, hf_model=inner, tokenizer=tokenizer, device=str(model.device), dtype=model.dtype)
        except (ValueError, KeyError, AttributeError, NotImplementedError, ImportError) as error:
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise ModelError(
                f"TransformerLens cannot take family {model.anatomy.family.model_type!r}: {reason}"
            ) from error


def to_nnsight(model: LoadedModel, in_place: bool = False) -> Any:
    """An ``NNsight`` around a copy of the model, or around the model itself with ``in_place``.

    Trace with ``model.forward_inputs(encoded)``: ``with traced.trace(**inputs): ...``.
    """
    import nnsight

    return nnsight.NNsight(model.model if in_place else copy.deepcopy(model.model))


def _path(root: nn.Module, module: nn.Module) -> str:
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


def _trace(traced: Any, inputs: dict[str, Any], wanted: Sequence[tuple[str, str]]) -> tuple[list[Any], torch.Tensor]:
    """Values at (module path, side) pairs and the logits, from one trace."""
    kept: Any = []
    logits: Any = None
    with torch.inference_mode(), traced.trace(**inputs):
        asked: Any = [
            attrgetter(path)(traced).input.save() if side == "input" else attrgetter(path)(traced).output.save()
            for path, side in wanted
        ]
        kept = asked.save()
        logits = traced.output.logits.save()
    return list(kept), logits


def _plain(value: Any, tapped: Tap) -> torch.Tensor:
    """The tensor a hook would see: out of its container, heads apart."""
    if tapped.side == "pattern":
        value = value[1]
    elif not isinstance(value, torch.Tensor):
        value = value.last_hidden_state if hasattr(value, "last_hidden_state") else value[0]
    value = value if tapped.scale == 1.0 else value * tapped.scale
    return value if tapped.heads is None else value.unflatten(-1, (-1, tapped.head_dim or value.shape[-1]))


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
    """What :func:`~lvlm_lens.activations.capture` gives, captured by nnsight; arguments as there.

    Raises :class:`SiteError` for sites that nnsight cannot see on this family (rows without a batch axis).
    """
    wanted = sorted(expand_sites(sites, model.anatomy), key=_rank)
    spec = Positions.parse(positions)
    taps = [(site, tap(site, model.anatomy)) for site in wanted if site.name != "logits"]
    flat = [str(site) for site, found in taps if found.flat_in is not None]
    if flat:
        raise SiteError(f"nnsight sees rows without a batch axis at {', '.join(flat[:3])}; use capture")
    places = [(_path(model.model, found.module), found.side) for _, found in taps]
    keep_logits = logits or any(site.name == "logits" for site in wanted)
    traced = to_nnsight(model, in_place=False)
    copied = LoadedModel(traced._module, model.processor or model.tokenizer, name=model.name)
    pattern_blocks = [site.block for site, _ in taps if site.name == "pattern" and site.block is not None]

    def work(encoded: Encoded) -> tuple[dict[Site, np.ndarray], np.ndarray, np.ndarray | None]:
        index, valid = gather_positions(encoded, spec)
        store: dict[Site, list[torch.Tensor]] = {}
        read = reader(store, index, dtype)
        inputs = {**model.forward_inputs(encoded), "use_cache": False}
        if encoded.left_padded:
            inputs["logits_to_keep"] = model.keep_last(encoded.length)
        with eager_blocks(copied, pattern_blocks):
            values, scores = _trace(traced, inputs, places)
        for (site, found), value in zip(taps, values, strict=True):
            read(_plain(value, found), site)
        arrays = {site: pieces[0].float().numpy() for site, pieces in store.items()}
        rows = torch.arange(len(encoded))
        last = torch.tensor([-1 if encoded.left_padded else layout.last for layout in encoded.layouts])
        return arrays, valid, scores[rows, last].float().cpu().numpy() if keep_logits else None

    collected: dict[int, tuple[dict[Site, np.ndarray], np.ndarray, np.ndarray | None]] = {}
    for batch, (arrays, valid, last) in run_batches(model, data, work, batch_size):
        for row, number in enumerate(batch):
            one = {site: array[row] for site, array in arrays.items()}
            collected[number] = (one, valid[row], None if last is None else last[row])
    return assemble(
        model,
        data,
        {number: found[0] for number, found in collected.items()},
        {number: found[1] for number, found in collected.items()},
        {number: found[2] for number, found in collected.items() if found[2] is not None},
        wanted,
        spec,
    )
