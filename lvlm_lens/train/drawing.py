"""Replies that the base itself writes for a training: several a request, from a started turn, under a system prompt.

Draws follow torch's random state, which :mod:`.running` seeds before rows are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..data import Sample
from ..models.batching import in_batches

if TYPE_CHECKING:
    from ..lens import LVLM


def drawn_replies(
    base: LVLM,
    samples: Sequence[Sample],
    *,
    count: int = 1,
    started: Sequence[str] | None = None,
    system: str | None = None,
    max_new_tokens: int = 48,
    temperature: float | None = None,
    batch_size: int = 32,
) -> list[list[str]]:
    """``count`` replies to each sample, in order.

    Args:
        base: the model.
        samples: requests.
        count: replies a request.
        started: the beginning of the assistant's turn, one per sample; replies are what follows it.
        system: a system prompt for these requests.
        max_new_tokens: longest reply.
        temperature: of sampling; ``None`` takes the best token each time (then ``count`` is 1).
        batch_size: requests times ``count`` a forward.
    """
    if not samples:
        return []
    kinds = {} if temperature is None else {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    options = kinds or {"do_sample": False}

    @torch.inference_mode()
    def write(rows: list[int]) -> list[list[str]]:
        continuation = None if started is None else [started[row] for row in rows]
        encoded = base.encode([samples[row] for row in rows], system=system, continuation=continuation)
        base.padding.forget()
        produced = base.model.generate(
            **encoded.inputs,
            max_new_tokens=max_new_tokens,
            num_return_sequences=count,
            pad_token_id=base.tokenizer.pad_token_id,
            **options,
        )
        texts = base.tokenizer.batch_decode(produced[:, encoded.length :], skip_special_tokens=True)
        return [[text.strip() for text in texts[n * count : (n + 1) * count]] for n in range(len(rows))]

    found: dict[int, list[str]] = {}
    for rows, texts in in_batches(samples, max(1, batch_size // count), write):
        found.update(zip(rows, texts, strict=True))
    return [found[row] for row in range(len(samples))]
