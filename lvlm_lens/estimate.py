"""What a sweep would cost, before anything is spent: every stage by its own count, in seconds of this machine.

The model is built without weights (on PyTorch's meta device) for its shapes; a few samples are encoded for the number
of tokens; each stage that would run says how much work it has (:class:`~lvlm_lens.stages.work.Work`); and the units of
work are timed here and now (:mod:`.machine`).  Meant to be right within a factor of two.  Memory: :mod:`.memory`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .activations.check_anatomy import ROWS_ON_LOAD
from .config import SweepConfig, parse_blocks
from .data import Dataset, Sample
from .data.registry import load_dataset
from .errors import LensError
from .lens import LVLM
from .machine import forward_seconds, linear_seconds
from .memory import Memory
from .models.anatomy import Anatomy, resolve
from .models.loading import BACKBONES, empty_checkpoint, read_dtype
from .models.placement import hold_device
from .speed import Speed, figure_seconds, probe_seconds, product_seconds, shuffle_seconds, wide_seconds
from .stages import stages
from .stages.inputs import best_device, in_words_only
from .stages.stage import Plan
from .stages.work import Work

_TRIED = 8
_DISK = 5e8
"""Bytes a second at which weights are taken to be read."""


@dataclass(frozen=True)
class Opened:
    """The model of a run without its weights, the data, and what is known of both before anything is run.

    Attributes:
        data: for a model of words, its samples in words; model: on PyTorch's meta device; anatomy: of it.
        device, dtype: of the run.
        longest, tokens: of a few prompts; pictures: the share of them that shows one; patches: that the tower reads of
            such a prompt, all its tiles together.
    """

    data: Dataset
    model: LVLM
    anatomy: Anatomy
    device: str
    dtype: torch.dtype
    longest: int
    tokens: float
    pictures: float
    patches: float

    @classmethod
    def of(cls, config: SweepConfig, limit: int | None = None) -> Opened:
        """Read the shapes and the data of a configuration."""
        device = config.device or best_device()
        hold_device(device)
        data = load_dataset(
            config.dataset, config.root, config.split, config.subset, limit, seed=config.seed,
            **dict(config.columns),  # type: ignore[arg-type]
        )  # fmt: skip
        remote = config.trust_remote_code
        empty, owner = empty_checkpoint(config.model, revision=config.revision, trust_remote_code=remote)
        named = read_dtype(config.dtype)
        model = LVLM(empty, owner, system=config.system)
        model.encoder.special_tokens = config.special_tokens
        if not model.takes_images:
            data = in_words_only(data)
        tried = _tried(model, data)
        encoded = [model.encoder([sample]) for sample in tried]
        lengths = [len(one.layouts[0].attended) for one in encoded]
        patches = [_patches(empty, one.inputs) for one in encoded if one.samples[0].images]
        return cls(
            data, model, resolve(empty), device,
            named if isinstance(named, torch.dtype) else empty.dtype, max(lengths), sum(lengths) / len(tried),
            len(patches) / len(tried), sum(patches) / max(len(patches), 1),
        )  # fmt: skip

    def memory(self, config: SweepConfig, backbone: nn.Module | None = None) -> Memory:
        """Bytes that a sweep of this configuration needs."""
        model = self.model.model
        return Memory.of(config, model, self.anatomy, self.dtype, self.device, self.longest, self.data, backbone)

    def speed(self, config: SweepConfig, items: int) -> Speed:
        """Seconds of each unit of work over so many items, timed here and now."""
        anatomy, device, dtype = self.anatomy, self.device, self.dtype
        batch = min(config.batch_size, items)
        positions = max(1, round(self.tokens))
        decoder: list[Any] = [(block, batch * positions, positions) for block in anatomy.blocks]
        one = [(block, batch, positions) for block in anatomy.blocks]
        attention = {"heads": anatomy.n_heads, "head_dim": anatomy.head_dim}
        forward = forward_seconds(decoder, device, dtype, **attention)
        if anatomy.vision is not None and self.pictures:
            patches = max(1, round(self.patches or self.tokens))  # unknown: of the order of the image tokens
            forward += self.pictures * forward_seconds([(anatomy.vision, batch * patches, patches)], device, dtype)
        step = forward_seconds(one, device, dtype)
        shape = (anatomy.vocab_size, anatomy.d_model)
        head = linear_seconds(shape, batch, device, dtype)
        fits = config.folds, config.permutations, config.replicates
        probe, plain = probe_seconds(max(items, 20), anatomy.d_model, *fits)
        asked = config.sasa or config.defenses
        fit, table, tuned = wide_seconds(max(min(128, items), 20), anatomy.vocab_size) if asked else (0.0, 0.0, 0.0)
        parameters = sum(p.numel() for block in anatomy.blocks for p in block.parameters())
        row = (forward + head) / batch
        checked = ROWS_ON_LOAD[self.model.takes_images]
        return Speed(
            row=row,
            step=step + head,
            probe=probe,
            probe_plain=plain,
            wide_fit=fit,
            table=table,
            tuned=tuned,
            product=product_seconds(device, torch.float32),
            product_double=product_seconds("cpu", torch.float64),
            shuffle=shuffle_seconds(max(anatomy.embed.weight.numel(), 1), device, dtype) if config.twin else 0.0,  # type: ignore[union-attr, operator]
            figure=figure_seconds(),
            load=3.0 + parameters * torch.finfo(dtype).bits / 8 / _DISK + checked * row,
        )


def _patches(model: nn.Module, inputs: Mapping[str, Any]) -> float:
    """How many patches of the pictures of one prompt the tower reads; 0 where the input does not tell."""
    pixels = inputs.get("pixel_values")
    side = getattr(getattr(model.config, "vision_config", None), "patch_size", None)
    side = side[0] if isinstance(side, (list, tuple)) else side
    if not isinstance(pixels, torch.Tensor) or pixels.ndim == 2:  # Qwen-VL's processor has cut them already
        return 0.0 if pixels is None else float(len(pixels))
    return pixels.numel() / pixels.shape[-3] / side**2 if isinstance(side, int) else 0.0


def _tried(model: LVLM, data: Dataset) -> list[Sample]:
    """A few samples that can be encoded, spread over the data."""
    tried = []
    for i in torch.linspace(0, len(data) - 1, min(_TRIED, len(data))).tolist():
        try:
            model.encoder([data[round(i)]])
        except LensError:
            continue
        tried.append(data[round(i)])
    if not tried:
        model.encoder([data[0]])  # raises, with its reason
    return tried


def estimate_sweep(config: SweepConfig, runs: int = 1) -> dict[str, Any]:
    """Forwards, FLOPs, bytes, seconds and memory of a sweep, stage by stage, as plain values.

    ``runs`` such sweeps one after the other take that many times the time, and the memory of one.
    """
    opened = Opened.of(config, config.limit)
    data, model, anatomy = opened.data, opened.model, opened.anatomy
    blocks = parse_blocks(config.blocks, anatomy.n_blocks)
    kept = anatomy.n_blocks if blocks is None else len(blocks)
    plan = Plan(config, model, data, kept)
    work = work_of(plan)
    speed = opened.speed(config, len(data))
    spent = {name: seconds_of(one, speed) for name, one in work.items()}
    parameters = sum(p.numel() for p in model.model.parameters())
    in_blocks = sum(p.numel() for block in anatomy.blocks for p in block.parameters())
    vision = sum(p.numel() for p in anatomy.vision.parameters()) if anatomy.vision is not None else 0
    rows = runs * sum(one.rows for one in work.values())
    reader = config.backbone or BACKBONES.get(config.model)
    backbone = empty_checkpoint(reader)[0] if reader is not None and plan.in_words else None
    memory = opened.memory(config, backbone)
    passes = sum(name.startswith("reading") and one.rows > 0 for name, one in work.items())
    supposed = [f"{name}: {one.note}" for name, one in work.items() if one.note]
    if config.device_map is not None:
        supposed.append("memory: as if all weights lay on one device")
    return {
        "model": config.model,
        "parameters": parameters,
        "dataset": config.dataset,
        "samples": len(data),
        "tokens_a_sample": round(opened.tokens, 1),
        "sweeps": runs,
        "forwards": round(rows),
        "flops": 2.0 * (in_blocks + opened.pictures * vision) * opened.tokens * rows,
        "bytes_on_disk": runs * passes * len(data) * kept * (anatomy.d_model * 4 + 12),
        "device": opened.device,
        "seconds_by_stage": {
            "loading": round(runs * speed.load, 1), **{name: round(runs * s, 1) for name, s in spent.items()}
        },
        "seconds": round(runs * (speed.load + sum(spent.values())), 1),
        "weights_bytes": memory.weights,
        "peak_bytes": memory.peak,
        "device_bytes": memory.device,
        "largest_batch_size": memory.largest_batch_size,
        "supposed": supposed,
    }  # fmt: skip


def work_of(plan: Plan) -> dict[str, Work]:
    """What each stage that would run says of itself, by line of the estimate; ``figures`` last."""
    work: dict[str, Work] = {"figures": Work()}
    for stage in stages():
        if stage.asked(plan.settings):
            for name, one in stage.cost(plan).items():
                work[name] = work.get(name, Work()) + one
    return {**{name: one for name, one in work.items() if name != "figures"}, "figures": work["figures"]}


def seconds_of(work: Work, speed: Speed) -> float:
    """Seconds that work takes at a speed."""
    return (
        work.rows * speed.row
        + work.steps * speed.step
        + work.probes * speed.probe
        + work.probes_plain * speed.probe_plain
        + work.products * speed.product
        + work.products_double * speed.product_double
        + work.wide_fits * speed.wide_fit
        + work.tables * speed.table
        + work.tuned * speed.tuned
        + work.shuffled * speed.shuffle
        + work.figures * speed.figure
    )
