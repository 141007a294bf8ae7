"""``run_with_cache`` and ``run_with_hooks`` with TransformerLens' meaning, for people who think in them.

One forward over a batch, the full logits ``[batch, position, vocab]``, and every site by its
TransformerLens name.  Names may be filtered by a name, a glob, a list or a function, as there;
without a filter every site of the decoder is kept, attention patterns too, and that alone makes
attention eager; a function is asked about the decoder's sites, and the vision tower's come by name.
For data sets use ``capture``, which keeps positions and streams batches.

Two names mean a little more here than there: ``hook_embed`` is what block 0 really reads, image
features and all, and ``q`` and ``k`` are before norms and rotation, as there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..data import Sample
from ..errors import SiteError
from ..models.encode import Encoded
from ..models.loaded import LoadedModel
from .capture import eager_blocks
from .hooks import HookFunction, attached
from .sites import VISION_SITES, Site, all_sites, expand_sites, tap

NamesFilter = str | Sequence[str] | Callable[[str], bool] | None
CacheHook = Callable[..., torch.Tensor | None]
Batch = Encoded | Sample | Sequence[Sample]


@dataclass(frozen=True, slots=True)
class HookPoint:
    """What a hook function gets as ``hook``: its ``name`` and, for block sites, ``layer()``."""

    site: Site

    @property
    def name(self) -> str:
        """TransformerLens' name of the site."""
        return str(self.site)

    def layer(self) -> int:
        """The block; raises :class:`SiteError` where there is none."""
        if self.site.block is None:
            raise SiteError(f"{self.site} belongs to no block")
        return self.site.block


class Cache(Mapping[str, torch.Tensor]):
    """Activations of one forward by TransformerLens' names: ``cache["blocks.3.hook_resid_post"]``.

    ``cache["resid_post", 3]`` and a :class:`Site` work too; negative blocks count from the end.
    """

    def __init__(self, values: Mapping[Site, torch.Tensor], model: LoadedModel) -> None:
        self._values, self._model = dict(values), model

    def __getitem__(self, key: str | Site | tuple[str, int]) -> torch.Tensor:
        spec = Site(key[0], key[1]) if isinstance(key, tuple) else key
        (site,) = expand_sites(spec, self._model.anatomy)
        if site not in self._values:
            raise SiteError(f"site {site} was not cached; cached: {', '.join(map(str, list(self._values)[:4]))} ...")
        return self._values[site]

    def __contains__(self, key: object) -> bool:
        return any(key in (site, str(site)) for site in self._values)

    def __iter__(self) -> Iterator[str]:
        return (str(site) for site in self._values)

    def __len__(self) -> int:
        return len(self._values)

    def to_activation_cache(self, model: Any = None) -> Any:
        """TransformerLens' ``ActivationCache`` of the decoder's sites.

        ``model`` is the bridge that its helpers (``logit_attrs``, ``accumulated_resid`` with norms) need; see
        :func:`~lvlm_lens.activations.neighbours.to_transformer_lens`.
        """
        from transformer_lens import ActivationCache

        kept = {str(s): v for s, v in self._values.items() if s.name not in (*VISION_SITES, "image_features")}
        return ActivationCache(kept, model)


def _encoded(model: LoadedModel, batch: Batch) -> Encoded:
    return batch if isinstance(batch, Encoded) else model.encode(batch)


def _chosen(model: LoadedModel, names: NamesFilter) -> list[Site]:
    if names is None or callable(names):
        decoder = [s for s in all_sites(model.anatomy) if s.name not in (*VISION_SITES, "image_features")]
        chosen = [site for site in decoder if names is None or names(str(site))]
        if not chosen:
            raise SiteError("the names filter accepts none of this model's sites")
        return chosen
    return expand_sites(names, model.anatomy)


@torch.inference_mode()
def _run(model: LoadedModel, encoded: Encoded, hooks: Sequence[tuple[Site, HookFunction]]) -> torch.Tensor:
    patterns = [site.block for site, _ in hooks if site.name == "pattern" and site.block is not None]
    taps = [(site, tap(site, model.anatomy), function) for site, function in hooks]
    with eager_blocks(model, patterns), attached(taps):
        return model.model(**model.forward_inputs(encoded), use_cache=False).logits


def run_with_cache(
    model: LoadedModel,
    batch: Batch,
    names_filter: NamesFilter = None,
    *,
    device: torch.device | str | None = None,
    fwd_hooks: Sequence[tuple[str | Callable[[str], bool], CacheHook]] = (),
) -> tuple[torch.Tensor, Cache]:
    """Run once and keep sites whole.

    Args:
        model: the model.
        batch: samples, or a batch already encoded.
        names_filter: which sites; a name, a glob, a list of them, or a function of the name.
        device: where the copies go; the model's own by default.
        fwd_hooks: edits in place during the run, as in :func:`run_with_hooks`; the cache shows them.

    Returns:
        Logits ``[batch, position, vocab]`` and the :class:`Cache`.

    Raises:
        SiteError: no such site, or one that fired more than once or not at all.
    """
    kept: dict[Site, torch.Tensor] = {}

    def keep(value: torch.Tensor, site: Site) -> None:
        if site in kept:
            raise SiteError(f"{site} fired more than once in one forward")
        copy = value.detach().clone()
        kept[site] = copy if device is None else copy.to(device)

    sites = _chosen(model, names_filter)
    edits = _hooks(model, fwd_hooks)
    logits = _run(model, _encoded(model, batch), [*edits, *((site, keep) for site in sites)])
    return logits, Cache({site: kept[site] for site in sites}, model)


def run_with_hooks(
    model: LoadedModel, batch: Batch, fwd_hooks: Sequence[tuple[str | Callable[[str], bool], CacheHook]]
) -> torch.Tensor:
    """Run once with hooks and return the logits ``[batch, position, vocab]``.

    Each hook is ``(name or filter, function)``, called as ``function(value, hook=point)`` with
    ``point.name`` and ``point.layer()``; what it returns, unless ``None``, takes the value's place.
    """
    return _run(model, _encoded(model, batch), _hooks(model, fwd_hooks))


def _hooks(
    model: LoadedModel, fwd_hooks: Iterable[tuple[str | Callable[[str], bool], CacheHook]]
) -> list[tuple[Site, HookFunction]]:
    found: list[tuple[Site, HookFunction]] = []
    for names, function in fwd_hooks:

        def call(value: torch.Tensor, site: Site, function: CacheHook = function) -> torch.Tensor | None:
            return function(value, hook=HookPoint(site))

        found += [(site, call) for site in _chosen(model, names)]
    return found
