"""``LVLM``: the object that users hold; it joins a loaded model with the reading of its activations.

Everything below takes a :class:`~lvlm_lens.models.loaded.LoadedModel` and knows nothing of this class, so that no
lower room imports an upper one; everything above takes an :class:`LVLM`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, overload

import torch

from .activations import Activations, ActivationStore, capture, capture_to
from .activations.cache import run_with_cache, run_with_hooks
from .activations.check_anatomy import quick_check
from .activations.neighbours import to_nnsight, to_transformer_lens
from .data import Pair, Sample
from .models.loaded import LoadedModel


class Remote(Protocol):
    """What can be asked of a model on a server; the rooms above this one hold it (:class:`lvlm_lens.RemoteLVLM`)."""

    name: str
    n_blocks: int
    dtype: torch.dtype

    def capture(
        self, data: Sequence[Sample], sites: Any = "resid_post", positions: str = "last", **options: Any
    ) -> Activations:
        """See :meth:`lvlm_lens.RemoteLVLM.capture`."""

    def patch_last(self, pairs: Sequence[Pair], sites: str | Sequence[str] = "resid_post", **options: Any) -> Any:
        """See :meth:`lvlm_lens.RemoteLVLM.patch_last`."""


class LVLM(LoadedModel):
    """A vision-language model, or its language-only backbone, ready to be looked into.

    See :class:`~lvlm_lens.models.loaded.LoadedModel` for what it is made of; ``LVLM(model, processor)`` takes a pair
    that is loaded already.
    """

    @staticmethod
    def remote(name: str, where: bool | str = True, **options: Any) -> Remote:
        """A model that no card of ours holds, on NDIF through nnsight: captures and last-token patches, nothing else.

        Arguments, errors and limits are those of :class:`lvlm_lens.RemoteLVLM`, which it returns.
        """
        from . import RemoteLVLM  # the public face, which knows the rooms above this one

        return RemoteLVLM(name, where, **options)

    def check(self) -> None:
        """A few short forwards prove that its parts are where the table says; see :mod:`.activations.check_anatomy`."""
        quick_check(self)

    @overload
    def capture(
        self, data: Sequence[Sample], sites: Any = ..., positions: str = ..., *, to: None = None, **options: Any
    ) -> Activations: ...
    @overload
    def capture(
        self, data: Sequence[Sample], sites: Any = ..., positions: str = ..., *, to: str | Path, **options: Any
    ) -> ActivationStore: ...
    def capture(
        self,
        data: Sequence[Sample],
        sites: Any = "resid_post",
        positions: str = "last",
        *,
        to: str | Path | None = None,
        **options: Any,
    ) -> Activations | ActivationStore:
        """Record activations; see :func:`lvlm_lens.activations.capture`.

        With ``to=`` a folder or fsspec address they go to a store there, which continues where it was
        stopped; see :func:`lvlm_lens.activations.capture_to`.
        """
        if to is not None:
            return capture_to(self, data, to, sites=sites, positions=positions, **options)
        return capture(self, data, sites=sites, positions=positions, **options)

    def run_with_cache(self, batch: Any, names_filter: Any = None, **options: Any) -> Any:
        """Logits and every site by TransformerLens' names; see :func:`lvlm_lens.activations.cache.run_with_cache`."""
        return run_with_cache(self, batch, names_filter, **options)

    def run_with_hooks(self, batch: Any, fwd_hooks: Any) -> torch.Tensor:
        """Logits with hooks in place; see :func:`lvlm_lens.activations.cache.run_with_hooks`."""
        return run_with_hooks(self, batch, fwd_hooks)

    def to_transformer_lens(self) -> Any:
        """A TransformerLens bridge on a copy; see :mod:`lvlm_lens.activations.neighbours`."""
        return to_transformer_lens(self)

    def to_nnsight(self, in_place: bool = False) -> Any:
        """An nnsight model on a copy; see :mod:`lvlm_lens.activations.neighbours`."""
        return to_nnsight(self, in_place)
