"""One engine in a process of its own, driven by lines of JSON: ``python -m lvlm_lens.bench.worker``.

A process each, so that peak memory is the engine's and one library's changes to the model reach no
other.  Time and memory are taken in different passes.  Peak memory is the growth of the resident set
over what the process held before the pass: its high-water mark (``VmHWM``) is reset through
``/proc/self/clear_refs`` after freed heap was handed back to the system.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import Sample
from ..lens import LVLM
from .engines import ENGINES, Engine
from .subject import Size, build, requests

TOLERANCE = 1e-3
"""Largest difference allowed, as a share of the largest activation of the block."""


@torch.inference_mode()
def reference(model: LVLM, samples: Sequence[Sample]) -> np.ndarray:
    """Residuals ``[row, block, d_model]`` at the last token from plain forwards of one row each.

    Hugging Face's hidden states give every block but the last, whose state is the input of the final
    norm; nothing of ours is involved but the encoding.
    """
    rows = []
    for sample in samples:
        seen: list[torch.Tensor] = []
        handle = model.anatomy.norm.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        inputs = model.encode(sample).inputs
        states = model.model(**inputs, use_cache=False, output_hidden_states=True).hidden_states
        handle.remove()
        rows.append(torch.stack([state[0, -1] for state in [*states[1:-1], seen[-1]]]))
    return torch.stack(rows).float().numpy()


class Worker:
    """An engine, its requests, and what the plain forward says about them."""

    def __init__(self, name: str, size: Size) -> None:
        model = build(size)
        self.samples = requests(size)
        self.changed = [*requests(size, seed=1)[:1], *self.samples[1:]]  # row 0 gets another picture
        self.truth = [reference(model, samples) for samples in (self.samples, self.changed)]
        self.tokens = sum(model.encode(sample).length for sample in self.samples)
        self.engine: Engine = ENGINES[name](model, size.batch)
        self.reads = name != next(iter(ENGINES))

    def grade(self) -> dict[str, Any]:
        """SUPPORTED, or SILENTLY_WRONG and how: against the plain forward, and after a picture changed."""
        if not self.reads:
            for samples in (self.samples, self.changed):
                self.engine(samples)
            return {"grade": "SUPPORTED", "blocks": 0, "max_error": 0.0}
        found = [np.array(self.engine(samples)) for samples in (self.samples, self.changed)]
        blocks = found[0].shape[1]  # an engine may not reach the last block
        truth = [values[:, :blocks] for values in self.truth]
        errors = [_largest(ours, plain) for ours, plain in zip(found, truth, strict=True)]
        moved = _largest(found[1][:1], found[0][:1])
        result = {"blocks": blocks, "max_error": max(errors), "moved_by_picture": moved}
        if not moved > 0:
            return {**result, "grade": "SILENTLY_WRONG", "why": "another picture gives the same activations"}
        if not max(errors) <= TOLERANCE:
            return {**result, "grade": "SILENTLY_WRONG", "why": "activations differ from the plain forward's"}
        return {**result, "grade": "SUPPORTED"}

    def time(self) -> dict[str, float]:
        """Seconds of one pass over the requests."""
        start = time.perf_counter()
        self.engine(self.samples)
        return {"seconds": time.perf_counter() - start}

    def memory(self) -> dict[str, int]:
        """Bytes by which the resident set grew, at most, during one pass."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        self.engine(self.samples)
        return {"bytes": _status("VmHWM") - before}


def _largest(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference over blocks, each as a share of the block's largest value."""
    scale = np.abs(other).max(axis=(0, 2), keepdims=True)
    return float((np.abs(one - other) / scale).max())


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def main() -> None:
    """Answer commands from standard input until it closes."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print; only answers go to the pipe
    worker: Worker | None = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if command["do"] == "build":
                torch.set_num_threads(command["threads"])
                worker = Worker(command["engine"], Size(**command["size"]))
                answer: dict[str, Any] = {"tokens": worker.tokens}
            else:
                answer = getattr(worker, command["do"])()
        except Exception as error:  # an engine's failure is a result here, and is printed with its words
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
