"""ShiftDC (arXiv 2502.13095): take back the part of the picture's shift that points toward "safe".

A picture moves the residual by ``m_l`` (image run minus caption run, last prompt token).  ``s_l`` is the mean
text-only unsafe residual minus the mean safe one.  The component ``c_l = a (m_l . s_l / |s_l|^2) s_l`` is subtracted
at the last prompt token of the prefill in a range of blocks (10 to 31 of 32 on LLaVA-1.5-7B, here the same share of
the depth).  ``m_l`` is taken from the two plain runs, for every block before anything is subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..activations import Activations, Site, attached, capture, tap
from ..data import Sample
from ..errors import DataError, UsageError
from ..lens import LVLM
from ..models.batching import batches, in_batches
from .base import Defense, Guarded, labelled, prompt_text


@dataclass(eq=False, repr=False)
class ShiftDC(Defense):
    """Modality-shift disentangling and calibration.

    Args:
        alpha: strength a.
        first_block, last_block: range, ends included; default 10/32 of the depth to the last block.
        caption_tokens: longest caption, where a sample has none and the model writes one.
        describe_file: prompt for that caption.
        batch_size: rows per forward.

    Attributes (after ``fit``): ``safety_`` float32 ``[block, d_model]`` (s_l), ``blocks_``.
    """

    name = "shiftdc"
    needs = frozenset({"training data", "captions", "pictures"})
    approximation = "captions come from the data set or the model itself; a = 1; blocks by share of depth"
    source = "arXiv 2502.13095"

    alpha: float = 1.0
    first_block: int | None = None
    last_block: int | None = None
    caption_tokens: int = 48
    describe_file: str | None = None
    batch_size: int = 32

    def fit(self, model: LVLM, data: Sequence[Sample]) -> ShiftDC:
        """Measure s_l on the training items in words alone."""
        self.check_model(model)
        start = (
            round(model.n_blocks * 10 / 32) if self.first_block is None else model.anatomy.block_index(self.first_block)
        )
        end = model.n_blocks - 1 if self.last_block is None else model.anatomy.block_index(self.last_block)
        if start > end:
            raise UsageError(f"blocks {start} to {end}: the first stands after the last")
        known, _ = labelled(data)
        words = [s.without_images() for s in known if not s.images or s.text_only is not None]
        try:
            words, labels = labelled(words)
        except DataError as error:
            raise DataError(
                f"shiftdc needs training items in words alone (text_only), harmful and harmless: {error}"
            ) from None
        self.blocks_ = list(range(start, end + 1))
        acts = capture(model, words, self._sites(), "last", batch_size=self.batch_size)
        self.safety_ = np.stack(
            [
                acts["resid_post", b][labels == 1, 0].mean(0, dtype=np.float64)
                - acts["resid_post", b][labels == 0, 0].mean(0, dtype=np.float64)
                for b in self.blocks_
            ]
        ).astype(np.float32)
        return self

    def _sites(self) -> list[Site]:
        return [Site("resid_post", block) for block in self.blocks_]

    def corrections(self, guarded: Guarded | None, model: LVLM, samples: Sequence[Sample]) -> np.ndarray:
        """c_l of each sample, float32 ``[sample, block, d_model]``; 0 for requests without a picture."""
        if not hasattr(self, "safety_"):
            raise UsageError(f"defence {self.name!r} is not fitted yet; call fit(model, data) first")
        out = np.zeros((len(samples), *self.safety_.shape), dtype=np.float32)
        pictured = [i for i, sample in enumerate(samples) if sample.images]
        if not pictured:
            return out
        few = [samples[i] for i in pictured]
        missing = [i for i, s in enumerate(few) if not s.caption]
        prompt = prompt_text("describe", self.describe_file)
        asked = [replace(few[i], text=prompt) for i in missing]
        written = model.generate(asked, self.caption_tokens, self.batch_size) if missing else []
        captions = {i: s.caption or "" for i, s in enumerate(few)} | dict(zip(missing, written, strict=True))
        words = [replace(s, text=f"{captions[i]}. {s.text}".strip(), images=()) for i, s in enumerate(few)]
        seen = capture(model, few, self._sites(), "last", batch_size=self.batch_size)["resid_post"][:, :, 0]
        read = capture(model, words, self._sites(), "last", batch_size=self.batch_size)["resid_post"][:, :, 0]
        shift = seen - read  # m_l, [n, block, d_model]
        share = (shift * self.safety_).sum(-1, keepdims=True) / np.maximum((self.safety_**2).sum(-1)[..., None], 1e-12)
        out[pictured] = self.alpha * share * self.safety_
        return out

    def _hooks(self, model: LVLM, correction: np.ndarray) -> list[Any]:
        """Hooks that subtract at the last prompt token, in the prefill only (decoding steps have one position)."""
        hooks = []
        for number, site in enumerate(self._sites()):
            change = torch.from_numpy(correction[:, number])  # [batch, d_model]

            def shift(value: torch.Tensor, where: Site, change: torch.Tensor = change) -> torch.Tensor | None:
                if value.shape[1] == 1:
                    return None
                value = value.clone()
                value[:, -1] -= change.to(value.device, value.dtype)
                return value

            hooks.append((site, tap(site, model.anatomy), shift))
        return hooks

    def answer(self, guarded: Guarded, samples: list[Sample], max_new_tokens: int, batch_size: int) -> list[str]:
        """Answers with the correction in place; it decodes itself, so it must be the innermost guard."""
        if isinstance(guarded.inner, Guarded):
            raise UsageError(
                "shiftdc edits the model itself and cannot stand around another guard; put it last in a stack"
            )
        model = guarded.lvlm
        correction = self.corrections(guarded, model, samples)
        answers: dict[int, str] = {}

        def ask(batch: list[int]) -> list[str]:
            with attached(self._hooks(model, correction[batch])):
                return model.generate_batch([samples[i] for i in batch], max_new_tokens)

        for batch, made in in_batches(samples, batch_size, ask):
            answers.update(zip(batch, made, strict=True))
        return [answers[i] for i in range(len(samples))]

    def capture(
        self, model: LVLM, data: Sequence[Sample], sites: Any = "resid_post", positions: str = "last", **options: Any
    ) -> Activations:
        """Activations with the correction in place."""
        from .sasa import _joined

        size = int(options.pop("batch_size", self.batch_size))
        correction = self.corrections(None, model, data)
        parts, order = [], []
        for batch in batches(data, size):
            edits = [(site, function) for site, _, function in self._hooks(model, correction[batch])]
            few = [data[i] for i in batch]
            parts.append(capture(model, few, sites, positions, batch_size=len(few), edits=edits, **options))
            order += batch
        return _joined(parts, order)
