"""The peak memory of a sweep, before it runs: weights, what stays beside them, and the widest of its stages.

Meant as an upper bound that is not far off: a sweep is to take at most 1.15 times its weights plus the rest of this
sum.  On a GPU it is the device's memory; on the CPU that of the process, Python
and its libraries included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .causal.grid_options import wave_tokens
from .causal.nulls import NULLS
from .causal.patch_grid import RECORDED
from .config import SweepConfig
from .data import Dataset
from .defenses.wide_table import IN_MEMORY
from .interventions.seats import PACK
from .machine import memory_bytes, resident_bytes
from .measures.unembedding import PIECE
from .models.anatomy import LOGITS, Anatomy
from .models.twin import PART

_LATER = 192 * 2**20
"""On the CPU, what is not there yet when the estimate is made: interactive figures, Parquet, image formats (about 50
MiB), and freed blocks that C's allocator keeps (100 to 150 MiB on mini)."""
_CODES = {"4bit": 0.5625, "8bit": 1.0}
"""Bytes of a quantised entry: NF4 with a float32 scale for every 64, and LLM.int8."""


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Attributes:
        weights: of the model; beside: what is there before and while it runs (on the CPU: Python and its libraries,
            those that are loaded later counted in).
        row: of one row of a batch at its widest place; batch: rows per forward; lens: logits of one batch's lens.
        measures: the product of an unembedding with itself; head: the twin's own, kept for its lenses from the reading
            on, 0 without a twin.
        patching: of one wave of patched cells and the state recorded for them.
        backbone: weights of the language-only backbone that is read, where the model waits beside it (on the CPU).
        twin: of shuffling the largest part of a weight; tables: of SASA's features and of one probe on them (CPU).
        answers: whether prompts go through the whole model after the twin (SASA, the defences).
        device: that there are.
    """

    weights: int
    beside: int
    row: float
    batch: int
    lens: int
    measures: int
    head: int
    patching: int
    backbone: int
    twin: int
    tables: int
    answers: bool
    device: int

    @classmethod
    def of(
        cls,
        config: SweepConfig,
        model: nn.Module,
        anatomy: Anatomy,
        dtype: torch.dtype,
        device: str,
        tokens: int,
        data: Dataset,
        backbone: nn.Module | None = None,
    ) -> Memory:
        """What a sweep over ``data``, whose longest prompt has so many tokens, needs; the models may be empty."""
        size = torch.finfo(dtype).bits // 8
        batch = min(config.batch_size, len(data))
        logits = batch * anatomy.vocab_size
        lens = 3 * 4 * min(max(LOGITS, logits), logits * anatomy.n_blocks)
        on_cpu = not device.startswith("cuda")
        largest = max(p.numel() for p in model.parameters())
        return cls(
            weights=_weights(model, size, config.quantize),
            beside=resident_bytes() + _LATER if on_cpu else 0,
            row=_row_bytes(anatomy, tokens, size),
            batch=batch,
            lens=lens,
            measures=_measures(anatomy),
            head=anatomy.vocab_size * anatomy.d_model * size if config.twin and config.quantize is None else 0,
            patching=_patching(anatomy, tokens, config.pairs, size, wave_tokens(device))
            if config.pairs and data.pairs()
            else 0,
            backbone=_weights(backbone, size, None) if backbone is not None and on_cpu else 0,
            twin=min(largest, PART) * (8 + 2 * size) if config.twin and config.quantize is None else 0,
            tables=_tables(min(128, len(data)), anatomy.vocab_size) if config.sasa and on_cpu else 0,
            answers=config.sasa or config.defenses,
            device=memory_bytes(device),
        )

    @property
    def peak(self) -> int:
        """The whole."""
        reading = self.batch * self.row + self.lens
        later: float = max(self.twin, self.measures, self.patching)
        if self.backbone:
            later = max(later, self.backbone + self.batch * self.row)
        if self.answers:
            later = max(later, reading + self.tables)
        return round(self.weights + self.beside + max(reading, self.head + later))

    @property
    def largest_batch_size(self) -> int:
        """The largest power of two of rows that fits into nine tenths of the device; 0 where not even one does."""
        room = 0.9 * self.device - self.weights - self.beside - self.head - self.lens - self.tables
        rows = room / self.row
        return 0 if rows < 1 else 2 ** min(int(rows).bit_length() - 1, 10)


def _weights(model: nn.Module, size: int, quantize: str | None) -> int:
    """Bytes of the weights; quantisers pack linear layers and leave the head and the embeddings as they are."""
    every = sum(p.numel() for p in model.parameters())
    if quantize is None:
        return every * size
    getter: Any = getattr(model, "get_output_embeddings", None)
    head = None if getter is None else getter()
    packed = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear) and m is not head)
    return round((every - packed) * size + packed * _CODES[quantize])


def _tables(rows: int, vocabulary: int) -> int:
    """SASA on first-token logits: a quick map's cells, their controls and their runs again, and one probe.

    Large tables lie on disk (:mod:`.defenses.wide_table`); a probe reads one of them in float64, standardised.
    """
    table = 4 * rows * vocabulary
    held = 22 * table if table <= IN_MEMORY else table
    return held + 4 * table


def _measures(anatomy: Anatomy) -> int:
    """``W'W`` of one unembedding in float64, and a piece of it as float64."""
    return 8 * (anatomy.d_model**2 + min(PIECE, anatomy.vocab_size * anatomy.d_model))


def _patching(anatomy: Anatomy, tokens: int, pairs: int, size: int, wave: int) -> int:
    """A wave of tokens inside one block, what they attend to, the logits, and what is recorded of both prompts."""
    d, inner = anatomy.d_model, _inner(anatomy)
    per_token = d * 2 + 2 * anatomy.n_kv_heads * anatomy.head_dim
    recorded = 2 * anatomy.n_blocks * tokens * per_token * size * pairs
    pack = max(PACK, d // 4)
    keys = pack + tokens  # of one pack: its own and the prefix, repeated for every head and joined
    attended = wave // pack * keys * anatomy.n_heads * anatomy.head_dim * 4 * size
    masks = 13 * wave * keys  # places of keys (int64), the mask in numbers, and as yes and no
    logits = min(LOGITS, 2 * (1 + len(NULLS)) * pairs * anatomy.n_blocks * anatomy.vocab_size)
    return wave * (8 * d + 3 * inner) * size + attended + masks + min(recorded, RECORDED) + 3 * 4 * logits


def _inner(anatomy: Anatomy) -> int:
    """The widest intermediate state of a block."""
    shapes = (p.shape for block in anatomy.blocks for p in block.parameters() if p.ndim == 2)
    return max((int(shape[0]) for shape in shapes), default=anatomy.d_model)


def _row_bytes(anatomy: Anatomy, tokens: int, size: int) -> float:
    """Bytes of one row of a batch at its widest: a block's intermediate states, attention, kept residuals, logits."""
    inner = _inner(anatomy)
    block = tokens * (6 * anatomy.d_model + 3 * inner) * size
    scores = 2 * anatomy.n_heads * tokens**2 * 4  # where the kernel writes them out
    keys = 2 * anatomy.n_blocks * tokens * anatomy.n_kv_heads * anatomy.head_dim * size  # answers are decoded
    kept = 8 * tokens * anatomy.d_model * size  # SASA keeps the residual after a few blocks
    logits = 3 * anatomy.vocab_size * 4
    vision = 0
    if anatomy.vision is not None:
        wide = max((int(p.shape[0]) for p in anatomy.vision.parameters() if p.ndim == 2), default=0)
        vision = 4 * tokens * wide * size
    return float(block + scores + keys + kept + logits + vision)
