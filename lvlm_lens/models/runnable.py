"""What the parts of a loaded model may ask of the whole, so that they need not import it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from ..data import Sample
from .anatomy import Anatomy
from .encode import Encoded


class Runnable(Protocol):
    """Encodes samples and runs them; a :class:`~lvlm_lens.models.loaded.LoadedModel` is one."""

    model: Any
    anatomy: Anatomy
    name: str

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""

    @property
    def takes_images(self) -> bool:
        """False for a text-only model."""

    def encode(self, samples: Sample | Sequence[Sample], padding_side: str = "left") -> Encoded:
        """Samples as the model's inputs."""

    def logits(self, encoded: Encoded) -> torch.Tensor:
        """Float32 ``[batch, vocab]`` at the last token."""
