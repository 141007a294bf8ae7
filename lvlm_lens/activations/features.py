"""Image features, computed once for a picture that appears in many prompts.

Safety data sets show one picture under many words.  The vision tower and the projector see only the
picture, so their output is kept by the picture's name and given to the model's forward as
``mm_encoder_outputs``, which current transformers take in place of pixels.  Each picture goes
through the tower alone, so its features are the same numbers whichever batch meets it first.

The cache is used only where it is shown to be right: on its first batch one row is run with pixels
and with features, and unless the logits agree the model goes on with pixels, and ``reason`` says
why.  Families whose image path leaves anything but features behind (deepstack, cross-attention),
whose pixels are padded to their batch, or whose forward takes no features, go on with pixels too.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..data import Sample
from ..data.images import picture_name
from ..models.encode import Encoded
from ..models.loaded import LoadedModel
from ..tolerance import allowed, difference

_BYTES = 2**30


class FeatureCache:
    """Features of recent pictures of one model, at most ``limit`` bytes of them.

    Attributes:
        computed: pictures (or groups of pictures of one sample) that went through the vision tower.
        reused: times that features were there already.
        reason: why pixels are used instead, or ``None``.
    """

    def __init__(self, model: LoadedModel, limit: int = _BYTES) -> None:
        self.model = model
        self.limit = limit
        self.computed = self.reused = 0
        self.reason: str | None = None
        self._kept: OrderedDict[Hashable, list[torch.Tensor]] = OrderedDict()
        self._bytes = 0
        self._checked = False
        self._container: type = list
        core = getattr(model.model, "model", None)
        self._features = getattr(core, "get_image_features", None)
        closed = {"deepstack", "cross_attention"} & model.anatomy.family.flow
        if self._features is None or "mm_encoder_outputs" not in inspect.signature(model.model.forward).parameters:
            self.reason = "the family's forward takes no image features"
        elif closed:
            self.reason = f"the family's image path is not only features ({', '.join(sorted(closed))})"

    @classmethod
    def for_capture(cls, model: LoadedModel, data: Sequence[Sample], sites: Iterable[Any]) -> FeatureCache | None:
        """A cache where pictures recur (three rows for two pictures, at least) and no site lies before the features."""
        if any(site.name in ("vision_resid_post", "image_features") for site in sites):
            return None
        shown = [tuple(picture_name(source) for source in sample.images) for sample in data if sample.images]
        if len(shown) < 1.5 * len(set(shown)) or not shown:
            return None
        cache = cls(model)
        return cache if cache.reason is None else None

    @torch.inference_mode()
    def apply(self, encoded: Encoded) -> Encoded:
        """The batch with features in place of pixels, or the batch itself where that cannot be."""
        pixels = encoded.inputs.get("pixel_values")
        if self.reason is not None or pixels is None:
            return encoded
        rows = self._rows(encoded)
        if rows is None:
            return encoded
        ready = self._with_features(encoded, rows)
        if ready is not None and not self._checked:
            self._check(encoded, rows)
        return ready if self.reason is None and ready is not None else encoded

    def _with_features(self, encoded: Encoded, rows: list[dict[str, torch.Tensor]]) -> Encoded | None:
        parts: list[torch.Tensor] = []
        for sample, towards in zip(encoded.samples, rows, strict=True):
            key = tuple(picture_name(source) for source in sample.images)
            if key in self._kept:
                self.reused += 1
                self._kept.move_to_end(key)
            else:
                found = self._compute(towards, len(sample.images))
                if found is None:
                    return None
                self._keep(key, found)
            parts += self._kept[key]
        inputs: dict[str, Any] = {name: value for name, value in encoded.inputs.items() if name != "pixel_values"}
        pooled: Any = torch.stack(parts) if self._container is torch.Tensor else self._container(parts)
        inputs["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=pooled)}
        return Encoded(inputs, encoded.layouts, encoded.samples, encoded.prompts)

    def _compute(self, inputs: dict[str, torch.Tensor], pictures: int) -> list[torch.Tensor] | None:
        assert self._features is not None
        pooled = self._features(**inputs, return_dict=True).pooler_output
        self._container = torch.Tensor if isinstance(pooled, torch.Tensor) else type(pooled)
        if len(pooled) != pictures:
            self.reason = f"{pictures} pictures gave {len(pooled)} groups of features"
            return None
        self.computed += 1
        return [part.clone() for part in pooled]

    def _keep(self, key: Hashable, parts: list[torch.Tensor]) -> None:
        self._kept[key] = parts
        self._bytes += _size(parts)
        while self._bytes > self.limit and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])

    def _rows(self, encoded: Encoded) -> list[dict[str, torch.Tensor]] | None:
        """For each row, what the vision tower needs of it; ``None`` where rows cannot be told apart."""
        pixels, grid = encoded.inputs["pixel_values"], encoded.inputs.get("image_grid_thw")
        counts = [len(sample.images) for sample in encoded.samples]
        if grid is not None and len(grid) == sum(counts):
            patches = grid.prod(dim=1).split(counts)
            pieces = pixels.split([int(part.sum()) for part in patches])
            grids = grid.split(counts)
            return [{"pixel_values": p, "image_grid_thw": g} for p, g in zip(pieces, grids, strict=True)]
        if "image_sizes" in encoded.inputs or pixels.ndim != 4 or len(pixels) != sum(counts):
            self.reason = "the family pads or tiles pixels by batch"
            return None
        return [{"pixel_values": piece} for piece in pixels.split(counts)]

    def _check(self, encoded: Encoded, rows: list[dict[str, torch.Tensor]]) -> None:
        """One row with pixels and with features: the same logits, or pixels from now on."""
        self._checked = True
        alone = self.model.encode(encoded.samples[0])
        ready = self._with_features(alone, rows[:1])
        plain = self.model.logits(alone)
        try:
            fed = self.model.logits(ready) if ready is not None else None
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            self.reason = f"the forward refuses image features ({type(error).__name__}: {error})"
            return
        if fed is None or difference(fed, plain) > allowed(self.model.dtype, plain):
            self.reason = "logits with features differ from logits with pixels"


def _size(parts: list[torch.Tensor]) -> int:
    return sum(part.numel() * part.element_size() for part in parts)
