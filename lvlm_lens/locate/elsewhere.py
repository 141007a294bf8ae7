"""The residual stream read elsewhere: at other tokens, pooled, under another template, after the first answer token.

What robustness tables vary.  One pass gives several readings: for each, the mean of resid_post over the positions it
names, and the logit lens's refusal log-odds of that mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..activations.capture import gather_positions
from ..activations.hooks import attached
from ..activations.sites import Site, tap
from ..data import Sample
from ..errors import DataError
from ..lens import LVLM
from ..models.batching import batches
from ..models.encode import Encoded
from ..models.positions import Layout, Positions
from ..models.refusal_tokens import refusal_log_odds


@dataclass(frozen=True)
class Reading:
    """resid float32 ``[n, block, d]`` and lens_log_odds float32 ``[n, block]`` (nats) at one place."""

    resid: np.ndarray
    lens_log_odds: np.ndarray


def with_next_token(encoded: Encoded, tokens: torch.Tensor) -> Encoded:
    """The batch with one more token a row (int64 ``[row]``), the beginning of an answer; rows must be left-padded.

    Tensors with one entry a position grow with it: the mask by 1, token types by those of words (0), a mask over
    pictures by its last column.
    """
    if not encoded.left_padded:
        raise DataError("a token can be appended to left-padded rows only")
    rows, length = encoded.inputs["input_ids"].shape
    inputs = {}
    for name, value in encoded.inputs.items():
        by_position = isinstance(value, torch.Tensor) and value.ndim >= 2 and value.shape[:2] == (rows, length)
        if by_position and not name.startswith("pixel"):
            if name == "input_ids":
                more = tokens.to(value.device, value.dtype)[:, None]
            elif name == "attention_mask":
                more = torch.ones_like(value[:, :1])
            elif "type" in name:
                more = torch.zeros_like(value[:, :1])
            else:
                more = value[:, -1:]
            value = torch.cat([value, more], 1)
        inputs[name] = value
    layouts = [
        Layout(length + 1, (*layout.attended, length), layout.images, layout.question) for layout in encoded.layouts
    ]
    return Encoded(inputs, layouts, encoded.samples, encoded.prompts)


@torch.inference_mode()
def read_elsewhere(
    model: LVLM,
    samples: Sequence[Sample],
    places: Mapping[str, str],
    blocks: Sequence[int],
    refusal_ids: Sequence[int],
    system: str | None = None,
    first_tokens: Sequence[int] | None = None,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Reading]:
    """Read all places in one pass.

    Args:
        model: the model.
        samples: samples; rows with and without pictures run apart.
        places: position specifications by name; several tokens are averaged.
        blocks: block numbers.
        refusal_ids: tokens of the refusal log-odds.
        system: a system prompt for this reading.
        first_tokens: one token id a sample, appended to its prompt; ``last`` is then that token.
        batch_size: rows per forward.
        progress: called with (done, all).

    Raises:
        UsageError, DataError: the chat template loses the system prompt, or refuses it.
    """
    anatomy = model.anatomy
    sites = [Site("resid_post", block) for block in blocks]
    resid = {name: np.empty((len(samples), len(blocks), anatomy.d_model), dtype=np.float32) for name in places}
    odds = {name: np.empty((len(samples), len(blocks)), dtype=np.float32) for name in places}
    specs = {name: Positions.parse(place) for name, place in places.items()}
    done = 0
    for batch in batches(samples, batch_size):
        shown = [samples[i] for i in batch]
        encoded = model.encode(shown, system=system)
        if first_tokens is not None:
            encoded = with_next_token(encoded, torch.as_tensor([first_tokens[i] for i in batch]))
        where = {name: gather_positions(encoded, spec) for name, spec in specs.items()}
        kept: dict[str, list[torch.Tensor]] = {name: [] for name in places}

        def read(value: torch.Tensor, site: Site, where=where, kept=kept) -> None:  # type: ignore[no-untyped-def]
            del site
            for name, (index, valid) in where.items():
                wide = index.to(value.device).unsqueeze(-1).expand(-1, -1, value.shape[-1])
                weight = torch.from_numpy(valid).to(value.device).unsqueeze(-1)  # [batch, P, 1]
                kept[name].append((value.gather(1, wide).float() * weight).sum(1) / weight.sum(1))

        with attached([(site, tap(site, anatomy), read) for site in sites]):
            model.logits(encoded)
        for name, states in kept.items():
            stacked = torch.stack([state.to(model.device) for state in states], 1)  # [batch, block, d]
            resid[name][batch] = stacked.cpu().numpy()
            odds[name][batch] = refusal_log_odds(anatomy.lens(stacked).float(), refusal_ids).cpu().numpy()
        done += len(batch)
        if progress is not None:
            progress(done, len(samples))
    return {name: Reading(resid[name], odds[name]) for name in places}
