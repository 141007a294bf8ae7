"""The ways to read every block's residual that the capture benchmark compares.

Each engine is prepared once around the model and then takes a list of requests and gives what it
read at the last token of the prompt, float32 ``[row, block, d_model]`` after each block (before the
final norm), or ``None`` for the plain forward, which reads nothing.  All encode with the same
processor and run the same batches; what differs is how the numbers get out.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import Sample
from ..lens import LVLM

Engine = Callable[[Sequence[Sample]], np.ndarray | None]


def _batches(model: LVLM, samples: Sequence[Sample], size: int) -> Iterator[dict[str, Any]]:
    for start in range(0, len(samples), size):
        yield model.forward_inputs(model.encode(samples[start : start + size]))


def plain(model: LVLM, batch: int) -> Engine:
    """The model's own forward, logits at the last position only: what nothing can beat."""

    @torch.inference_mode()
    def run(samples: Sequence[Sample]) -> None:
        for inputs in _batches(model, samples, batch):
            model.model(**inputs, use_cache=False, logits_to_keep=1).logits.float()

    return run


def ours_last(model: LVLM, batch: int) -> Engine:
    """``model.capture`` of every block at the last token, in memory."""

    def run(samples: Sequence[Sample]) -> np.ndarray:
        return model.capture(samples, "resid_post", "last", logits=True, batch_size=batch)["resid_post"][:, :, 0]

    return run


def ours_disk(model: LVLM, batch: int) -> Engine:
    """``model.capture(to=folder)`` of every block at all positions, flushed to the device."""
    folder = tempfile.TemporaryDirectory(prefix="lvlm-lens-bench-")

    def run(samples: Sequence[Sample]) -> _FromStore:
        place = Path(folder.name) / "store"
        shutil.rmtree(place, ignore_errors=True)
        return _FromStore(model.capture(samples, "resid_post", "all", batch_size=batch, to=place), folder)

    return run  # type: ignore[return-value]


class _FromStore:
    """The last valid position of each row, read back when it is looked at (outside the timed part)."""

    def __init__(self, store: Any, folder: Any) -> None:
        self.store, self.folder = store, folder

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        last = self.store.valid.sum(axis=1) - 1
        rows = np.arange(len(last))
        found = [self.store["resid_post", block][rows, last] for block in self.store.blocks()]
        return np.stack(found, axis=1).astype(dtype or np.float32)


def hidden_states(model: LVLM, batch: int) -> Engine:
    """``output_hidden_states=True``; its last state is after the final norm, so that one is left out."""

    @torch.inference_mode()
    def run(samples: Sequence[Sample]) -> np.ndarray:
        rows = []
        for inputs in _batches(model, samples, batch):
            output = model.model(**inputs, use_cache=False, logits_to_keep=1, output_hidden_states=True)
            rows.append(torch.stack([state[:, -1] for state in output.hidden_states[1:-1]], dim=1).float())
        return torch.cat(rows).numpy()

    return run


def nnsight(model: LVLM, batch: int) -> Engine:
    """nnsight: ``.output.save()`` of each block inside one trace a batch."""
    import nnsight as library

    wrapped = library.NNsight(model.model)
    layers = wrapped.model.language_model.layers

    @torch.inference_mode()
    def run(samples: Sequence[Sample]) -> np.ndarray:
        rows = []
        for inputs in _batches(model, samples, batch):
            with wrapped.trace(**inputs, use_cache=False, logits_to_keep=1):
                saved = library.save([layer.output[:, -1] for layer in layers])
            rows.append(torch.stack([value.float() for value in saved], dim=1))
        return torch.cat(rows).numpy()

    return run


def transformer_lens(model: LVLM, batch: int) -> Engine:
    """TransformerLens' bridge: ``run_with_cache`` of each block's ``hook_out``, last position.

    The bridge switches the model to eager attention, and so runs without a fused kernel.
    """
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    bridge = build_bridge_from_module(model.model, type(model.model).__name__, hf_config=model.model.config)
    names = [f"blocks.{block}.hook_out" for block in range(model.n_blocks)]

    @torch.inference_mode()
    def run(samples: Sequence[Sample]) -> np.ndarray:
        rows = []
        for inputs in _batches(model, samples, batch):
            _, cache = bridge.run_with_cache(
                inputs["input_ids"],
                pixel_values=inputs["pixel_values"],
                attention_mask=inputs["attention_mask"],
                names_filter=names,
                pos_slice=-1,
                logits_to_keep=1,
                use_cache=False,
            )
            found = [cache[name] for name in names]
            rows.append(torch.stack([value.reshape(len(value), -1).float() for value in found], dim=1))
        return torch.cat(rows).numpy()

    return run


ENGINES: dict[str, Callable[[LVLM, int], Engine]] = {
    "plain HF forward": plain,
    "ours, last token, every block": ours_last,
    "ours, all positions to disk": ours_disk,
    "output_hidden_states=True": hidden_states,
    "nnsight": nnsight,
    "TransformerLens bridge": transformer_lens,
}
"""By the name in the table; the first is what the others are measured against."""
