"""What a training would take, told from the base's configuration without its weights: steps, FLOPs, memory, time.

FLOPs are counted as transformers' trainer counts them, ``6 x parameters x tokens`` (forward, and backward through
activations and weights), so that plan and record agree; with adapters the weights' part is not spent, and a third of it
is too much.  Seconds are measured: the forward's matrix products at this width on this machine, three times a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..errors import DataError, LensError
from ..machine import forward_seconds, memory_bytes
from .method import Job, Plan
from .running import readable_samples
from .targets import chosen_layers

if TYPE_CHECKING:
    from ..lens import LVLM
    from .adapter_contract import AdapterContract

_TRIED = 8
REPLY_TOKENS = 24
"""Assumed length of a reply where the data hold none."""


def plan_adapter(method: AdapterContract, job: Job) -> Plan:
    """See :class:`~.method.Plan`; rows that the model itself would write are not made, requests are counted."""
    from ..lens import LVLM
    from ..models.loading import empty_checkpoint

    empty, owner = empty_checkpoint(job.model, revision=job.loading.get("revision"))
    base = LVLM(empty, owner)
    settings = job.settings
    samples = readable_samples(base, job.data)
    tokens = _row_tokens(base, samples)
    layers = chosen_layers(base.anatomy, empty, settings, method.targets)
    modules: dict[str, Any] = dict(empty.named_modules())
    names = [name for found in layers.values() for name in found]
    trainable = sum(settings.rank * (modules[n].in_features + modules[n].out_features) for n in names)
    parameters = sum(p.numel() for p in empty.parameters())
    counted = parameters - sum(
        p.numel() for m in empty.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()
    )
    forwards = settings.steps * settings.batch_size * method.sequences
    flops = 6.0 * counted * tokens * forwards
    drawn = method.drawn(settings, len(samples))
    drawing = 2.0 * counted * (tokens + REPLY_TOKENS) * drawn
    device = str(job.loading.get("device") or "cpu")
    dtype = torch.bfloat16 if settings.bf16 or device.startswith("cuda") else torch.float32
    step = _forward(base, settings.batch_size * method.sequences, tokens, device, dtype)
    seconds = 3.0 * step * settings.steps + step / max(1, settings.batch_size * method.sequences) * drawn * REPLY_TOKENS
    size = 2 if empty.dtype in (torch.bfloat16, torch.float16) else 4
    wide = sum(sum(p.shape[0] for p in block.parameters() if p.ndim == 2) for block in base.anatomy.blocks)
    batch = settings.batch_size * method.sequences
    activations = batch * tokens * (4.0 * wide + 3 * base.anatomy.vocab_size) * (2 if settings.bf16 else 4)
    peak = parameters * size + trainable * 16 + activations
    notes = [f"{method.sequences} sequence(s) a row and step"]
    if drawn:
        notes.append(f"{drawn} replies of {REPLY_TOKENS} tokens are drawn by the model")
    room = memory_bytes(device)
    if peak > 0.9 * room:
        notes.append(f"this device has {room / 2**30:.1f} GiB: take a smaller --batch-size")
    return Plan(
        len(samples), settings.steps, tokens, trainable, parameters, flops, drawing, peak, seconds, tuple(notes)
    )


def _row_tokens(base: LVLM, samples: Any) -> float:
    """Mean tokens of a request and its reply, over a few that can be encoded."""
    counts = []
    for number in torch.linspace(0, len(samples) - 1, min(_TRIED, len(samples))).tolist():
        sample = samples[round(number)]
        try:
            request = len(base.encoder([sample]).layouts[0].attended)
        except LensError:
            continue
        reply = len(base.tokenizer(sample.reference)["input_ids"]) if sample.reference else REPLY_TOKENS
        counts.append(request + reply)
    if not counts:
        raise DataError(f"none of {len(samples)} samples can be encoded for this model")
    return sum(counts) / len(counts)


def _forward(base: LVLM, rows: int, tokens: float, device: str, dtype: torch.dtype) -> float:
    """Seconds of one forward of a batch."""
    anatomy, positions = base.anatomy, max(1, round(tokens))
    parts: list[Any] = [(block, rows * positions, positions) for block in anatomy.blocks]
    spent = forward_seconds(parts, device, dtype, heads=anatomy.n_heads, head_dim=anatomy.head_dim)
    if anatomy.vision is not None:
        spent += forward_seconds([(anatomy.vision, rows * positions, positions)], device, dtype)
    return spent
