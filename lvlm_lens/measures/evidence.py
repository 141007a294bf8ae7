"""What the locators need from a model, gathered in one pass over the data.

One forward a batch gives, for every sample: the residual stream after each block at the chosen
position; through the logit lens, each block's refusal log-odds and top token; the model's own
first-token refusal log-odds and top token; the mean input embedding (what block 0 reads,
pictures merged in); and the mean of the vision tower's last block, before the projector: the
picture without any language model.  A probe on the last two, and one on the bare words, are the
baselines that a curve has to beat.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..activations.capture import gather_positions
from ..activations.hooks import attached
from ..activations.loop import OnError, Progress, run_batches
from ..activations.sites import Site, tap
from ..data import Sample
from ..errors import NumericalError
from ..lens import LVLM
from ..models.encode import Encoded
from ..models.positions import Positions
from ..models.refusal_tokens import refusal_log_odds, refusal_token_ids
from ..storage.arrays import load_arrays, save_arrays
from .lens_reading import read_lens


@dataclass(frozen=True)
class Evidence:
    """Arrays by sample (first axis), for ``n`` samples and ``B`` chosen blocks.

    Attributes:
        samples: the samples that could be run.
        blocks: block numbers ``[B]``; ``depth``: number of blocks of the model.
        resid: float32 ``[n, B, d_model]``, resid_post at the chosen position (mean over it where it
            selects several tokens).
        lens_log_odds: float32 ``[n, B]`` refusal log-odds of the logit lens, in nats; NaN where it was left out.
        lens_top: int64 ``[n, B]`` top token of the lens; -1 where it was left out.
        log_odds: float32 ``[n]`` refusal log-odds of the model's own first answer token.
        top: int64 ``[n]`` the model's own first answer token (greedy).
        embedding: float32 ``[n, d_model]`` mean input embedding.
        image: float32 ``[n, d_vision]`` mean of the vision tower's last block (NaN rows without a
            picture), or ``None``.
        refusal_ids: the refusal tokens that were used.
        lens_kl: float32 ``[n, B]`` KL divergence of the lens from the model's own first-token distribution, in nats,
            or ``None`` (evidence of earlier versions, and of defended runs).
        tokens: int64 ``[n]`` length of each encoded prompt, picture tokens included, or ``None`` (earlier versions).
    """

    samples: tuple[Sample, ...]
    blocks: tuple[int, ...]
    depth: int
    resid: np.ndarray = field(repr=False)
    lens_log_odds: np.ndarray = field(repr=False)
    lens_top: np.ndarray = field(repr=False)
    log_odds: np.ndarray = field(repr=False)
    top: np.ndarray = field(repr=False)
    embedding: np.ndarray = field(repr=False)
    image: np.ndarray | None = field(repr=False)
    refusal_ids: tuple[int, ...] = ()
    lens_kl: np.ndarray | None = field(default=None, repr=False)
    tokens: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.samples)

    def block(self, block: int) -> np.ndarray:
        """resid_post of one block, ``[n, d_model]`` (what probes read)."""
        return self.resid[:, self.blocks.index(block)]

    def rows(self, index: Sequence[int] | np.ndarray) -> Evidence:
        """The same evidence for some samples (a boolean mask or row numbers)."""
        index = np.asarray(index)
        numbers = np.flatnonzero(index) if index.dtype == bool else index
        arrays = {name: getattr(self, name)[numbers] for name in _ARRAYS if getattr(self, name) is not None}
        return replace(self, samples=tuple(self.samples[int(i)] for i in numbers), **arrays)

    @classmethod
    def concatenate(cls, parts: Sequence[Evidence]) -> Evidence:
        """Several records of the same model, one after the other; pictures may be absent in some."""
        first = parts[0]
        width = next((part.image.shape[1] for part in parts if part.image is not None), None)
        arrays: dict[str, Any] = {}
        for name in _ARRAYS:
            pieces = [getattr(part, name) for part in parts]
            if name in ("lens_kl", "tokens") and any(piece is None for piece in pieces):
                arrays[name] = None
                continue
            if name == "image":
                if width is None:
                    arrays[name] = None
                    continue
                pieces = [
                    np.full((len(part), width), np.nan, dtype=np.float32) if piece is None else piece
                    for part, piece in zip(parts, pieces, strict=True)
                ]
            arrays[name] = np.concatenate(pieces)
        return replace(first, samples=tuple(sample for part in parts for sample in part.samples), **arrays)

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays, and the ids of their rows; samples are not written, they come from the data set."""
        arrays = {name: getattr(self, name) for name in _ARRAYS if getattr(self, name) is not None}
        arrays |= {"blocks": np.asarray(self.blocks), "refusal_ids": np.asarray(self.refusal_ids)}
        arrays["depth"] = np.asarray([self.depth])
        return arrays, {"ids": [sample.id for sample in self.samples]}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], ids: Sequence[str], data: Sequence[Sample]) -> Evidence:
        """Inverse of :meth:`to_arrays`, for the same data set."""
        found: dict[str, Any] = {"image": None, "lens_kl": None, "tokens": None, **arrays}
        by_id = {sample.id: sample for sample in data}
        blocks, refusal = (tuple(int(i) for i in found.pop(name)) for name in ("blocks", "refusal_ids"))
        depth = int(found.pop("depth")[0])
        return cls(tuple(by_id[i] for i in ids), blocks, depth, refusal_ids=refusal, **found)

    def save(self, path: Path) -> None:
        """Write the arrays and ids as one safetensors file, whole or absent."""
        arrays, about = self.to_arrays()
        save_arrays(path, arrays, {"ids": json.dumps(about["ids"])})

    @classmethod
    def load(cls, path: Path, data: Sequence[Sample]) -> Evidence:
        """Read what :meth:`save` wrote, for the same data set."""
        arrays, about = load_arrays(path)
        return cls.from_arrays(arrays, json.loads(about["ids"]), data)


_ARRAYS = ("resid", "lens_log_odds", "lens_top", "log_odds", "top", "embedding", "image", "lens_kl", "tokens")


def gather(
    model: LVLM,
    data: Sequence[Sample],
    positions: str | Positions = "last",
    blocks: Sequence[int] | None = None,
    batch_size: int = 32,
    on_error: OnError | None = None,
    progress: Progress | None = None,
    lens: bool = True,
) -> Evidence:
    """Run the model over the data once and keep what the locators need.

    Args:
        model: the model.
        data: samples; rows with and without pictures may be mixed.
        positions: where the residual stream is read; several tokens are averaged.
        blocks: which blocks; all by default.
        batch_size: rows per forward (halved by itself when memory runs out).
        on_error: called for a sample that cannot be encoded, which is then left out.
        progress: called with (done, all).
        lens: also read the logit lens of every block, which costs as much as a fifth of short prompts.

    Raises:
        NumericalError: NaN or infinity in the residual stream; the message names sample and block.
    """
    anatomy = model.anatomy
    chosen = tuple(range(anatomy.n_blocks)) if blocks is None else tuple(anatomy.block_index(b) for b in blocks)
    spec = Positions.parse(positions)
    refusal = refusal_token_ids(model)
    rows: dict[int, dict[str, np.ndarray]] = {}
    prepared = model.beginnings.batches(data, batch_size)

    def work(encoded: Encoded) -> dict[str, np.ndarray]:
        return _one_batch(model, encoded, spec, chosen, refusal, lens)

    for batch, arrays in run_batches(model, data, work, batch_size, on_error, progress, prepared=prepared):
        for row, number in enumerate(batch):
            rows[number] = {name: array[row] for name, array in arrays.items()}
    order = sorted(rows)
    samples = tuple(data[number] for number in order)
    width = next((rows[n]["image"].shape[-1] for n in order if "image" in rows[n]), None)
    stacked: dict[str, Any] = {}
    for name in _ARRAYS:
        if name == "image":
            empty = np.full(width or 0, np.nan, dtype=np.float32)
            stacked[name] = np.stack([rows[n].get(name, empty) for n in order]) if width else None
        else:
            stacked[name] = np.stack([rows[n][name] for n in order])
    bad = ~np.isfinite(stacked["resid"]).all(axis=2)  # [n, B]
    if bad.any():
        row, at = (int(i) for i in np.argwhere(bad)[0])
        raise NumericalError(
            f"resid_post of block {chosen[at]} holds NaN or infinity in {int(bad.any(1).sum())} of {len(order)} "
            f"samples (first: {samples[row].id!r}); use float32 or bfloat16, since float16 overflows"
        )
    return Evidence(samples, chosen, anatomy.n_blocks, refusal_ids=tuple(refusal), **stacked)


@torch.inference_mode()
def _one_batch(
    model: LVLM, encoded: Encoded, spec: Positions, blocks: tuple[int, ...], refusal: list[int], lens: bool
) -> dict[str, np.ndarray]:
    anatomy = model.anatomy
    index, valid = gather_positions(encoded, spec)
    split = model.beginnings.split(encoded, index.min(1).values.tolist())
    shift = 0 if split is None else split.offset
    where, mask = (index - shift).to(model.device), torch.from_numpy(valid).to(model.device)
    seen = encoded.inputs["attention_mask"] if split is None else split.attended
    attended = seen.to(model.device).unsqueeze(-1)  # [batch, length, 1]
    last = torch.tensor([layout.last - shift for layout in encoded.layouts], device=model.device)
    kept: dict[str, Any] = {"resid": {}, "last": {}}

    def read_block(value: torch.Tensor, site: Site) -> None:
        picked = value.gather(1, where.to(value.device).unsqueeze(-1).expand(-1, -1, value.shape[-1])).float()
        weight = mask.to(value.device).unsqueeze(-1)  # [batch, P, 1]
        kept["resid"][site.block] = (picked * weight).sum(1) / weight.sum(1)  # [batch, d_model]
        kept["last"][site.block] = value[torch.arange(len(value), device=value.device), last.to(value.device)]

    def read_embedding(value: torch.Tensor, site: Site) -> None:
        kept["embedding"] = (value.float() * attended.to(value.device)).sum(1)

    def read_beginning(value: torch.Tensor, site: Site) -> None:
        kept["beginning"] = kept.get("beginning", 0) + value.float().sum(1)  # the stem's one row, then each beginning's

    def read_vision(value: torch.Tensor, site: Site) -> None:
        kept["vision"] = value.detach().float()

    blocks_read: list[Any] = [(Site("resid_post", b), read_block) for b in blocks]
    embedding = Site("embed")
    seeing: list[Any] = []
    if encoded.samples[0].images and anatomy.vision_blocks:
        seeing.append((Site("vision_resid_post", len(anatomy.vision_blocks) - 1), read_vision))

    def reading(*sites: tuple[Site, Any]) -> Any:
        return attached([(site, tap(site, anatomy), function) for site, function in sites])

    if split is None:
        with reading(*blocks_read, (embedding, read_embedding), *seeing):
            logits = model.logits(encoded)  # [batch, vocab]
    else:
        with reading((embedding, read_beginning), *seeing):
            cache = split.begin(model.model)
        with reading(*blocks_read, (embedding, read_embedding)):
            logits = split.finish(model.model, cache)
        kept["embedding"] = kept["embedding"] + kept["beginning"][split.which.to(kept["beginning"].device)]
    kept["embedding"] = kept["embedding"] / encoded.inputs["attention_mask"].sum(1, keepdim=True)
    arrays: dict[str, torch.Tensor] = {
        "resid": torch.stack([kept["resid"][b].to(model.device) for b in blocks], dim=1),
        **_lens(model, [kept["last"][b].to(model.device) for b in blocks], refusal, logits, lens),
        "log_odds": refusal_log_odds(logits, refusal),
        "top": logits.argmax(-1),
        "embedding": kept["embedding"],
        "tokens": encoded.inputs["attention_mask"].sum(1),
    }
    if "vision" in kept:
        rows = len(encoded) if split is None else len(split.beginning["input_ids"])
        pooled = _pool_pictures(kept["vision"], rows, encoded.inputs.get("image_grid_thw"))
        if pooled is not None:
            arrays["image"] = pooled if split is None else pooled[split.which.to(pooled.device)]
    return {name: value.cpu().numpy() for name, value in arrays.items()}


def _lens(
    model: LVLM, states: Sequence[torch.Tensor], refusal: list[int], logits: torch.Tensor, wanted: bool
) -> dict[str, torch.Tensor]:
    """The lens of the last token's state after each block ``[batch, d_model]``."""
    if not wanted:
        shape = (len(logits), len(states))
        nothing = torch.full(shape, torch.nan)
        return {"lens_log_odds": nothing, "lens_kl": nothing, "lens_top": torch.full(shape, -1)}
    found = read_lens(model.anatomy, torch.stack(list(states), dim=1), refusal, logits)
    return {"lens_log_odds": found["log_odds"], "lens_kl": found["kl"], "lens_top": found["top"]}


def _pool_pictures(vision: torch.Tensor, rows: int, grid: torch.Tensor | None) -> torch.Tensor | None:
    """Mean of the tower's tokens for each of ``rows`` rows, ``[rows, d_vision]``.

    Towers return ``[pictures or tiles, tokens, d]`` in order, or all tokens of the batch in one row
    (variable resolution).  ``None`` where rows cannot be told apart: the baseline is then reported missing.
    """
    if vision.ndim == 2 or (vision.ndim == 3 and len(vision) == 1 and rows > 1):
        tokens = vision.reshape(-1, vision.shape[-1])
        if grid is None:
            return None
        counts = grid.prod(-1).tolist()
        per_picture = torch.stack([part.mean(0) for part in tokens.split(counts)])
    elif vision.ndim == 3:
        per_picture = vision.mean(1)
    else:
        return None
    if len(per_picture) % rows:
        return None
    return per_picture.unflatten(0, (rows, -1)).mean(1)
