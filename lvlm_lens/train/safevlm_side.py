"""The side module of :mod:`.safevlm`: safety tokens, a safety projector and a safety head.

It stands beside the model and reads two things that every LVLM has: what its own projector reads (the vision tower's
features) and its table of token embeddings.  The model's forward is not changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from ..data import Sample
from ..errors import ModelError, UsageError
from ..lens import LVLM

Mode = Literal["paper", "fixed"]
MODES: tuple[Mode, ...] = ("paper", "fixed")
LEVELS = 4
"""0 harmless, 1 answer with care, 2 may be refused, 3 must be refused."""


class SideModule(nn.Module):
    """Tokens and pooled picture features as keys and values, the request's embeddings as queries, two linear heads.

    Args:
        width: of the language model; seen: of the vision tower's features (0: no pictures).
        kinds: number of risk types.
        tokens: safety tokens; queries: pooled picture features, a square number.
        mode: ``paper``: the head reads the output at the first text position, whose query is a raw embedding that no
            word of the request reaches, so it is a classifier of the picture alone (as in the release of PSA-VLM);
            ``fixed``: the mean over the request's own positions.
    """

    def __init__(
        self, width: int, seen: int, kinds: int, tokens: int = 8, queries: int = 16, mode: Mode = "fixed"
    ) -> None:
        super().__init__()
        self.side = math.isqrt(queries)
        if self.side**2 != queries or mode not in MODES:
            raise UsageError(f"queries={queries}, mode={mode!r}; write a square number, and paper or fixed")
        self.mode = mode
        self.tokens = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.before = _Stage(seen) if seen else None
        self.after = _Stage(seen) if seen else None
        self.map = nn.Sequential(nn.Linear(seen, width), nn.SiLU(), nn.Linear(width, width)) if seen else None
        heads = next(n for n in (8, 6, 4, 3, 2, 1) if width % n == 0)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.level, self.kind = nn.Linear(width, LEVELS), nn.Linear(width, kinds)

    def project(self, picture: torch.Tensor) -> torch.Tensor:
        """Features of one picture ``[n, seen]`` to ``[queries, width]``: convolutions, pooling, convolutions, MLP."""
        assert self.before is not None and self.after is not None and self.map is not None
        across = math.isqrt(len(picture))
        grid = picture[len(picture) - across**2 :]  # a leading class token is left out
        grid = grid.T.reshape(1, -1, across, across)
        pooled = F.adaptive_avg_pool2d(self.before(grid), self.side)
        return self.map(self.after(pooled).flatten(2)[0].T)

    def forward(
        self, words: Sequence[torch.Tensor], pictures: Sequence[torch.Tensor | None]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of levels ``[n, 4]`` and kinds ``[n, kinds]``.

        Args:
            words: for each request, embeddings ``[T, width]``: the prompt's first token, then the request's own.
            pictures: features of its pictures ``[m, seen]`` (of the first one), or ``None``.
        """
        read = []
        for own, picture in zip(words, pictures, strict=True):
            keys: torch.Tensor = self.tokens  # a head that was trained on words alone reads no picture
            if picture is not None and self.map is not None:
                keys = torch.cat([keys, self.project(picture)])
            query = own[:1] if self.mode == "paper" else own[1:]
            found, _ = self.attention(query[None], keys[None], keys[None], need_weights=False)
            read.append(found[0].mean(0))
        whole = torch.stack(read)
        return self.level(whole), self.kind(whole)


class _Stage(nn.Module):
    """One residual stage of convolutions: depthwise 3 x 3 between two linear maps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.widen, self.look, self.back = (
            nn.Conv2d(width, width, 1),
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.back(F.silu(self.look(F.silu(self.widen(self.norm(x))))))


@torch.no_grad()
def read_request(model: LVLM, sample: Sample) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What the side module reads of one request: ``words [T, width]`` and the first picture's features, float32.

    Raises :class:`ModelError` where the family's projector does not read one grid of features a picture.
    """
    encoded = model.encode([sample])
    layout = encoded.layouts[0]
    ids = encoded.inputs["input_ids"][0, [layout.attended[0], *layout.question]]
    words = model.anatomy.embed(ids).float()
    if not sample.images:
        return words, None
    return words, picture_features(model, encoded.inputs)


def picture_features(model: LVLM, inputs: dict[str, Any]) -> torch.Tensor:
    """What the model's own projector reads of the first picture, ``[n, seen]`` float32; the language model rests."""
    projector, core = model.anatomy.projector, getattr(model.model, "model", None)
    if projector is None or not hasattr(core, "get_image_features"):
        raise ModelError(f"family {model.anatomy.family.model_type!r} has no projector whose input can be read")
    caught: list[torch.Tensor] = []

    def catch(module: nn.Module, args: tuple[Any, ...]) -> None:
        caught.append(args[0])

    handle = projector.register_forward_pre_hook(catch)
    try:
        wanted = ("pixel_values", "image_sizes", "image_grid_thw")
        core.get_image_features(**{name: inputs[name] for name in wanted if name in inputs})  # type: ignore[union-attr]
    finally:
        handle.remove()
    shape = tuple(caught[0].shape) if caught else None
    if shape is None or len(shape) != 3 or shape[1] - math.isqrt(shape[1]) ** 2 not in (0, 1):
        raise ModelError(
            f"family {model.anatomy.family.model_type!r}: its projector reads {shape}, expected [picture, n, width] "
            "with n a square (and a class token); train safevlm on a model with one grid per picture"
        )
    return caught[0][0].float()
