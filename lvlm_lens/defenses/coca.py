"""CoCA (arXiv 2409.11365): make a model more of what a safety principle makes it.

Two branches see the same request, one with a safety principle c before it and one without:
``d_t = z(. | c, x, v, y_<t) - z(. | x, v, y_<t)``; the next token is the best of ``z(. | c, ...) + a d_t`` and goes to
both.  Both branches are rows of one batch, so each keeps its own KV cache in the same decoding loop, which
is Hugging Face's own.  The sum is taken as ``(1 + a) z_c - a z``, so that a = 0 is the safety prompt and
a = -1 the undefended model exactly, token by token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..data import Sample
from ..errors import UsageError
from ..models.batching import in_batches
from .base import Defense, Guarded, filled, prompt_text


class _Calibration:
    """Logits processor: rows 0 .. n-1 hold the principle, rows n .. 2n-1 do not; all get the calibrated logits."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        del input_ids
        with_principle, without = scores.float().chunk(2)  # [n, vocab] each
        # a weight of 0 is left out, for 0 * -inf is not a number
        mixed = (1.0 + self.alpha) * with_principle if self.alpha != -1.0 else torch.zeros_like(with_principle)
        if self.alpha != 0.0:
            mixed = mixed - self.alpha * without
        return torch.nan_to_num(mixed, nan=-torch.inf).repeat(2, 1).to(scores.dtype)


@dataclass(eq=False, repr=False)
class CoCA(Defense):
    """Constitutional calibration at decoding.

    Args:
        alpha: strength a; 4 in a public port (the paper's value is not known).
        prompt_file: the principle, with ``{question}`` where the request goes.
    """

    name = "coca"
    approximation = "a = 4 is a public port's; the principle is this project's own words (prompt_file replaces it)"
    source = "arXiv 2409.11365"

    alpha: float = 4.0
    prompt_file: str | Path | None = None

    def rewrite(self, sample: Sample) -> Sample:
        """The branch with the principle."""
        return replace(sample, text=filled(prompt_text("coca_principle", self.prompt_file), question=sample.text))

    def answer(self, guarded: Guarded, samples: list[Sample], max_new_tokens: int, batch_size: int) -> list[str]:
        """Greedy answers of the calibrated model; it decodes itself, so it must be the innermost guard."""
        if isinstance(guarded.inner, Guarded):
            raise UsageError("coca decodes by itself and cannot stand around another guard; put it last in a stack")
        if not abs(self.alpha) < float("inf"):
            raise UsageError(f"alpha is {self.alpha}; give a finite number")
        from transformers import LogitsProcessorList

        model = guarded.lvlm
        answers: dict[int, str] = {}

        def ask(batch: list[int]) -> list[str]:
            few = [samples[i] for i in batch]
            pairs = [*(self.rewrite(s) for s in few), *few]
            encoded = model.encode(pairs)
            processors: Any = LogitsProcessorList([_Calibration(float(self.alpha))])
            with torch.inference_mode():
                produced = model.model.generate(
                    **encoded.inputs,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    pad_token_id=model.tokenizer.pad_token_id,
                    logits_processor=processors,
                )
            new = produced[: len(few), encoded.length :]
            return [text.strip() for text in model.tokenizer.batch_decode(new, skip_special_tokens=True)]

        for batch, made in in_batches(samples, max(1, batch_size // 2), ask):
            answers.update(zip(batch, made, strict=True))
        return [answers[i] for i in range(len(samples))]
