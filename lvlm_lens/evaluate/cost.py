"""What a defence costs, measured on the model's own blocks.

A meter counts, by hooks on the decoder's blocks, how many token-blocks were computed.  Divided by
the number of blocks this is tokens through the whole decoder, so a second pass over the last third
of the blocks counts as a third of a forward, and nothing a method forgets to declare is missed.
Padding is counted too: it is computed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..lens import LVLM


@dataclass
class Cost:
    """Sums over the queries answered so far.

    Attributes:
        queries: requests answered.
        forwards: rows through the whole decoder (a decoding step is one; half the blocks count one half).
        tokens: token positions through the whole decoder, padding included.
        pictures: rows through the vision tower's first block (image crops count one each).
        seconds: wall-clock time.
    """

    queries: int = 0
    forwards: float = 0.0
    tokens: float = 0.0
    pictures: float = 0.0
    seconds: float = 0.0

    def per_query(self) -> dict[str, float]:
        """Each sum divided by the number of queries."""
        count = max(self.queries, 1)
        return {key: value / count for key, value in asdict(self).items() if key != "queries"}


@contextmanager
def metered(model: LVLM, cost: Cost, queries: int) -> Iterator[None]:
    """Add what runs inside the block to ``cost``, as ``queries`` more requests."""
    anatomy = model.anatomy
    share = 1.0 / anatomy.n_blocks

    def on_block(module: torch.nn.Module, args: Any, output: Any) -> None:
        del module, args
        hidden = output[0] if isinstance(output, tuple) else output
        rows, length = hidden.shape[-3:-1]
        cost.forwards += rows * share
        cost.tokens += rows * length * share

    def on_picture(module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        del module, kwargs, output
        hidden = args[0] if args and isinstance(args[0], torch.Tensor) else None
        cost.pictures += len(hidden) if hidden is not None and hidden.ndim == 3 else 1

    handles = [block.register_forward_hook(on_block) for block in anatomy.blocks]
    if anatomy.vision_blocks:
        handles.append(anatomy.vision_blocks[0].register_forward_hook(on_picture, with_kwargs=True))
    start = time.perf_counter()
    try:
        yield
    finally:
        cost.seconds += time.perf_counter() - start
        cost.queries += queries
        for handle in handles:
            handle.remove()
