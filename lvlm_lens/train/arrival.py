"""Checks after the last step: what was saved is what was trained, and it does something.

The saved folder is put on a base that was loaded anew, as a user would: every tensor of the file must stand in the
model (:mod:`lvlm_lens.models.adapters` holds the file against it and refuses an adapter without effect), and the logits
of a few training requests must be those of the model that was trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..data import Dataset
from ..errors import ModelError
from ..lens import LVLM
from .attached import with_adapter
from .method import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..data import Sample

REQUESTS = 4
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
"""Largest difference of logits, relative to the largest logit: another order of sums, not other weights."""


def audit_after(job: Job, wrapped: Any, trained: LVLM, samples: Dataset) -> dict[str, Any]:
    """Compare the trained model with the saved adapter on a fresh base.

    Args:
        job: the training; wrapped: PEFT's wrapper after it.
        trained: the LVLM in whose blocks the adapter was trained.
        samples: requests to compare on.

    Raises:
        ModelError: a tensor that did not arrive, an adapter without effect, other logits.
    """
    wrapped.eval()
    few = _few(samples)
    before = compared_logits(trained, few)
    fresh = with_adapter(job.load(), job.folder)
    after = compared_logits(fresh, few)
    difference, largest = (before - after).abs().max().item(), before.abs().max().item()
    allowed = TOLERANCE.get(trained.dtype, 1e-5) * largest
    if not difference <= allowed:
        raise ModelError(
            f"the saved adapter on a fresh base gives other logits than the trained model (largest difference "
            f"{difference:.3g}, at most {allowed:.3g} expected): something that was trained was not saved; the folder "
            "is not marked as finished"
        )
    record = fresh.adapter
    assert record is not None
    idle = still_zero(wrapped)
    return {
        "tensors": record.tensors,
        "changes_logits": record.largest_difference,
        "fresh_minus_trained": difference,
        "largest_logit": largest,
        "untrained": idle,
    }


def _few(samples: Sequence[Sample]) -> list[Sample]:
    step = max(1, len(samples) // REQUESTS)
    return [samples[number] for number in range(0, len(samples), step)][:REQUESTS]


def compared_logits(model: LVLM, samples: Sequence[Sample]) -> torch.Tensor:
    """Logits of the last token, float32 ``[sample, vocab]``, each request alone; barred ones as 0."""
    rows = [model.logits(model.encode([sample])).float().cpu()[0] for sample in samples]
    stacked = torch.stack(rows)
    return torch.where(stacked.abs() < 1e30, stacked, 0.0)


def still_zero(wrapped: Any) -> list[str]:
    """Layers whose adapter is still zero after training: no gradient reached them (LLaVA's last vision block, say)."""
    return [
        name.split(".lora_B")[0].removeprefix("base_model.model.")
        for name, value in wrapped.named_parameters()
        if ".lora_B." in name and not bool(value.any())
    ]
