"""What a padded batch needs so that each of its rows equals the row alone.  [own]

A model is called with exactly what its processor returned.  A batch of rows of unequal length is padded, and there
the plain forward of some families counts positions from the left edge, padding included; others compute positions
from pictures and must not be given any.  So nothing is assumed: the first time that a model meets a padded batch of a
kind (with or without pictures, padded left or right), two short rows are run alone and padded, and what is added
to the processor's output is the first of these that is shown to change no row:

    positions counted over attended tokens      exact also for absolute positions
    nothing

Where neither is right, padded batches of that kind are refused; one row at a time still runs.

Rotary embeddings that stretch with the longest sequence of a batch (dynamic NTK, LongRoPE) give a short row the
angles of a long one, so there rows of unequal length are refused as soon as one reaches beyond the trained length.
Dynamic NTK in transformers also remembers the longest sequence it has seen; that memory is cleared before every
forward, which makes each the same as on a freshly loaded model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..data import ImageObject, Sample
from ..errors import ModelError
from ..tolerance import BARRED, allowed, difference
from .encode import Encoded
from .runnable import Runnable

_WORDS = ("Is it safe", "Can my toddler play with this, or is there something in it that I should know of?")
_COMPARED = 8
"""Positions at the end of a row whose logits are compared."""
Added = Callable[[torch.Tensor], dict[str, torch.Tensor]]
"""From an attention mask ``[batch, length]`` to what the forward is given beside the processor's output."""


def _kind(encoded: Encoded) -> tuple[bool, str]:
    """With or without pictures, padded left or right."""
    mask = encoded.inputs["attention_mask"]
    return any(sample.images for sample in encoded.samples), "left" if bool(mask[:, -1].all()) else "right"


def _counted(mask: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}


def _nothing(mask: torch.Tensor) -> dict[str, torch.Tensor]:
    del mask
    return {}


class Padding:
    """The proofs of one model, made when first needed and kept."""

    def __init__(self, lvlm: Runnable) -> None:
        self.lvlm = lvlm
        self.proofs: dict[tuple[bool, str], Added] = {}
        self._proving = False
        self.stretching = [
            module for module in lvlm.anatomy.decoder.modules() if _rope_types(module) & {"dynamic", "longrope"}
        ]

    def prove(self, encoded: Encoded) -> None:
        """Find what this batch will need, before anything is attached to the model or its attention is switched.

        Batches are also encoded ahead in a second thread while the first one runs the model with its hooks on; a proof
        there would take these hooks away in the middle of a forward.  So only the main thread proves here, and what was
        encoded elsewhere is proven when its forward is asked for (:meth:`added`).

        Raises :class:`ModelError` where this model's rows are shown to change under padding.
        """
        if threading.current_thread() is threading.main_thread():
            self._prove(encoded)

    def _prove(self, encoded: Encoded) -> None:
        mask = encoded.inputs["attention_mask"]
        if self._proving or bool(mask.all()):
            return
        self._refuse_stretched(mask)
        kind = _kind(encoded)
        if kind not in self.proofs:
            self._proving = True
            try:
                with without_hooks(self.lvlm.model):
                    self.proofs[kind] = self._find(*kind)
            finally:
                self._proving = False

    def added(self, encoded: Encoded) -> dict[str, torch.Tensor]:
        """What the forward of this batch is given beside ``encoded.inputs``; nothing where no row is padded."""
        self.forget()
        mask = encoded.inputs["attention_mask"]
        if bool(mask.all()) or "position_ids" in encoded.inputs:
            return {}
        self._prove(encoded)
        return self.proofs[_kind(encoded)](mask)

    def forget(self) -> None:
        """Clear what dynamic rotary embeddings remember of earlier, longer sequences."""
        for module in self.stretching:
            kinds = getattr(module, "rope_type", None)
            named = {f"{name}_": kind for name, kind in kinds.items()} if isinstance(kinds, dict) else {"": kinds}
            for prefix, kind in named.items():
                original = getattr(module, f"{prefix}original_inv_freq", None)
                if kind == "dynamic" and isinstance(original, torch.Tensor):
                    kept: Any = getattr(module, f"{prefix}inv_freq")
                    module.register_buffer(f"{prefix}inv_freq", original.to(kept.device).clone(), persistent=False)
                    setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)

    def _refuse_stretched(self, mask: torch.Tensor) -> None:
        lengths = mask.sum(-1)
        for module in self.stretching:
            trained = _trained_length(module)
            if int(lengths.max()) > trained and int(lengths.min()) < int(lengths.max()):
                raise ModelError(
                    f"rows of {int(lengths.min())} and {int(lengths.max())} tokens in one batch: beyond {trained} "
                    "tokens this model's rotary embeddings stretch with the longest row, which changes the others; "
                    "use a batch size of 1 (--batch-size 1)"
                )

    def _find(self, pictures: bool, side: str) -> Added:
        """The first addition under which a row alone and the same row padded give the same logits."""
        images = (ImageObject(_noise()),) if pictures else ()
        rows = [Sample(f"padding-{number}", words, images) for number, words in enumerate(_WORDS)]
        alone, padded = self.lvlm.encode(rows[:1]), self.lvlm.encode(rows, padding_side=side)
        here, inside_here = (_tail(rows.inputs["attention_mask"][0]) for rows in (alone, padded))
        plain = self._logits(alone, _nothing, here)[0]
        if not bool((plain.abs() < BARRED).any()):
            return _counted  # nothing but NaN: the reading that follows names the block
        most = allowed(self.lvlm.dtype, plain)
        errors: list[float] = []
        for add in (_counted, _nothing):
            try:
                short = self._logits(alone, add, here)[0]
                inside = self._logits(padded, add, inside_here)[0]
            except (TypeError, ValueError, RuntimeError, IndexError):
                continue  # a forward that takes no positions
            errors.append(max(difference(short, plain), difference(inside, plain)))
            if errors[-1] <= most:
                return add
        least = f"logits differ by {min(errors):.3g}, allowed {most:.3g}" if errors else "its forward fails"
        raise ModelError(
            f"rows of {self.lvlm.name!r} change when they are padded {side} ({least}), so a batch of unequal rows "
            "cannot be trusted; use a batch size of 1 (--batch-size 1)"
        )

    @torch.inference_mode()
    def _logits(self, encoded: Encoded, add: Added, positions: torch.Tensor) -> torch.Tensor:
        self.forget()
        inputs = {**encoded.inputs, **add(encoded.inputs["attention_mask"])}
        return self.lvlm.model(**inputs, use_cache=False, logits_to_keep=positions).logits.float()


def _tail(mask: torch.Tensor) -> torch.Tensor:
    """The last attended positions of a row: they read all before them, and logits of a whole picture need memory."""
    return mask.nonzero()[-_COMPARED:, 0]


def _rope_types(module: nn.Module) -> set[str]:
    kinds = getattr(module, "rope_type", None)
    found = kinds.values() if isinstance(kinds, dict) else [kinds]
    return {kind for kind in found if isinstance(kind, str)}


def _trained_length(module: Any) -> int:
    """The length up to which a rotary embedding is the one that was trained."""
    parameters = getattr(module.config, "rope_parameters", None) or {}
    nested = [inner for inner in parameters.values() if isinstance(inner, dict)] or [parameters]
    lengths = [inner["original_max_position_embeddings"] for inner in nested if inner.get("rope_type") == "longrope"]
    return min([int(length) for length in lengths] or [int(module.original_max_seq_len)])


def _noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))


@contextmanager
def without_hooks(model: nn.Module) -> Iterator[None]:
    """Run the model as it is, whatever edits and recordings are attached to it at the moment.

    Hooks of transformers itself stay: some families read their vision tower's hidden states through them.
    """
    kept = [(module, module._forward_hooks, module._forward_pre_hooks) for module in model.modules()]
    try:
        for module, after, before in kept:
            module._forward_hooks, module._forward_pre_hooks = _own(after), _own(before)
        yield
    finally:
        for module, after, before in kept:
            after.update(module._forward_hooks)  # transformers may have attached its own on this first forward
            before.update(module._forward_pre_hooks)
            module._forward_hooks, module._forward_pre_hooks = after, before


def foreign_hooks(model: nn.Module) -> bool:
    """Whether anything but transformers itself has hooks on the model's modules."""
    return any(
        len(_own(hooks)) < len(hooks)
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
    )


def _own(hooks: Any) -> Any:
    left = type(hooks)()
    for key, hook in hooks.items():
        if str(getattr(hook, "__module__", "")).startswith("transformers."):
            left[key] = hook
    return left
