"""How fast a store is read, beside a plain memory-mapped file of the same numbers."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..activations.sites import Site
from ..activations.store import ActivationStore
from ..activations.writer import StoreWriter
from ..storage.layout import ArrayPlan, Layout
from ..storage.ledger import Entry


def bench_reading(megabytes: int = 128, rounds: int = 7, width: int = 1024, tokens: int = 64) -> dict[str, Any]:
    """Read one block of ``megabytes`` from a store and from ``np.memmap``, by turns; both are in the page cache.

    Both end as a float32 array of the reader's own in memory; the store checks every checksum on
    the way.  Returns gigabytes a second (medians) and their ratio.
    """
    rows = max(8, megabytes * 2**20 // (width * tokens * 4) // 8 * 8)
    site = Site("resid_post", 0)
    with tempfile.TemporaryDirectory(prefix="lvlm-lens-bench-") as folder:
        layout = Layout(rows // 8, 8, tokens, tokens, (ArrayPlan(str(site), "float32", (width,)),))
        records = [{"id": f"r{row}", "text": "", "images": [], "options": []} for row in range(rows)]
        store = ActivationStore.create(f"{folder}/store", {"positions": "all"}, layout, records, {})
        values = torch.randn(8, tokens, width, generator=torch.Generator().manual_seed(0))
        flat = np.memmap(Path(folder) / "flat", np.float32, "w+", shape=(rows, tokens, width))
        with StoreWriter(store) as writer:
            for shard in range(rows // 8):
                writer.put(shard, layout.arrays[0], [(list(range(8)), values + shard, [tokens] * 8)], tokens)
                writer.commit(Entry(shard, list(range(8 * shard, 8 * shard + 8)), tokens, [tokens] * 8))
                flat[8 * shard : 8 * shard + 8] = (values + shard).numpy()
        flat.flush()
        del flat
        store.refresh()

        def mapped() -> np.ndarray:
            return np.array(np.memmap(Path(folder) / "flat", np.float32, "r", shape=(rows, tokens, width)))

        if not np.array_equal(store[site], mapped()):
            raise AssertionError("the store and the mapped file hold different numbers")
        seconds: dict[str, list[float]] = {"store": [], "memmap": []}
        readers: dict[str, Callable[[], np.ndarray]] = {"store": lambda: store[site], "memmap": mapped}
        for _ in range(rounds):
            for name, read in readers.items():
                start = time.perf_counter()
                size = read().nbytes
                seconds[name].append(time.perf_counter() - start)
    speed = {name: size / 1e9 / statistics.median(taken) for name, taken in seconds.items()}
    return {"store_gb_s": speed["store"], "memmap_gb_s": speed["memmap"], "ratio": speed["store"] / speed["memmap"]}
