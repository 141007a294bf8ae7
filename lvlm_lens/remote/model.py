"""``RemoteLVLM``: a model of which only the structure is here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch

from ..activations import Activations
from ..activations.traced import Row, TracedSites, row_of
from ..causal.grid import PatchGrid
from ..data import Pair, Sample
from ..errors import DataError, ModelError, SiteError, UsageError
from ..models.encode import Encoded
from ..models.loaded import LoadedModel
from ..models.loading import empty_checkpoint, source
from .answered import answered
from .patch import Places, patch_last, write

_REASONS = {
    "model": "its weights lie on the server",
    "weights_hash": "its weights lie on the server",
    "anatomy": "its modules here are empty",
    "random_twin": "it would shuffle the server's weights, which others use",
    "generate": "each token is a request of its own; ask the model elsewhere",
    "generate_batch": "each token is a request of its own; ask the model elsewhere",
    "attention": "the server chooses its attention kernel",
    "run_with_cache": "all sites of all blocks would travel; name sites in capture",
    "run_with_hooks": "hooks are functions of this process",
    "to": "a store needs the hash of the weights in its identity",
    "edits": "edits are functions of this process; patch_last writes on the server",
    "directions": "only positions are picked on the server",
    "reduce": "only positions are picked on the server",
    "on_error": "a sample that cannot be read is an error here",
}


class Skeleton(LoadedModel):
    """Structure without weights; prompts are encoded on the CPU."""

    @property
    def device(self) -> torch.device:
        """Where prompts are encoded."""
        return torch.device("cpu")


class RemoteLVLM:
    """A model on NDIF (https://ndif.us): :meth:`capture` and :meth:`patch_last`, nothing else.

    Args:
        name: hub id of a model that the server runs.
        where: ``True`` is NDIF as nnsight is configured (its key: ``nnsight.CONFIG.set_default_api_key`` or
            ``NDIF_API_KEY``), an ``http://`` address another server of the kind; ``"local"`` sends the same requests
            through nnsight's serialisation and runs them here: a rehearsal, and how this class is tested.
        revision, system: as for :meth:`lvlm_lens.LVLM.from_pretrained`.

    Attributes:
        name, n_blocks, dtype: as for a loaded model; the dtype is that of the checkpoint.

    Raises:
        ModelError: the configuration cannot be read, or the server's modules would have other names.
        UsageError: a model that is no hub id.
    """

    def __init__(
        self, name: str, where: bool | str = True, *, revision: str | None = None, system: str | None = None
    ) -> None:
        import nnsight

        place = source(name)
        if where != "local" and place != name:
            raise UsageError(f"{name!r} is on this machine; NDIF runs models by their hub id (OWNER/NAME)")
        empty, owner = empty_checkpoint(name, revision=revision)
        self._skeleton = Skeleton(empty, owner, name=name, system=system)
        self._where = where
        kind, given = (
            ("image-text-to-text", "processor") if self._skeleton.processor else ("text-generation", "tokenizer")
        )
        self._traced = nnsight.TransformersModel(
            place, task=kind, revision=revision, dtype=empty.dtype, **{given: owner}
        )
        theirs = {path for path, _ in self._traced._module.named_modules()}
        missing = sorted({path for path, _ in empty.named_modules()} - theirs)
        if missing:
            raise ModelError(f"nnsight builds {name!r} without {missing[0]!r}; its modules have other names there")
        self.name, self.n_blocks, self.dtype = name, self._skeleton.n_blocks, empty.dtype

    def __getattr__(self, name: str) -> Any:
        """Refuse, with its reason, what a loaded model has and this one has not."""
        if name.startswith("_") or not (hasattr(LoadedModel, name) or name in _REASONS):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        raise _refused(name)

    def capture(
        self,
        data: Sequence[Sample],
        sites: Any = "resid_post",
        positions: str = "last",
        *,
        logits: bool = False,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 8,
        **refused: Any,
    ) -> Activations:
        """Record activations: arguments and result as for :func:`lvlm_lens.activations.capture`.

        Prompts of equal length share a request, at most ``batch_size`` of them; nothing is padded, because what
        padding changes cannot be proven without a forward.

        Raises:
            SiteError: as there, and for attention patterns, which need another kernel than the server's.
            ModelError: the server cannot be asked, or refuses.
        """
        for name in refused:
            raise _refused(name)
        if not len(data):
            raise DataError("the data set is empty; there is nothing to run")
        wanted = TracedSites(self._skeleton, sites, positions, logits, dtype)
        if any(site.name == "pattern" for site in wanted.wanted):
            raise SiteError("attention patterns need eager attention, and the server chooses its own kernel")
        rows: dict[int, Row] = {}
        for numbers in self._equally_long(data, batch_size):
            batch = self.ask(wanted, self._skeleton.encode([data[number] for number in numbers]))
            rows.update((number, row_of(batch, row)) for row, number in enumerate(numbers))
        return wanted.assembled(self._skeleton, data, rows)

    def ask(self, wanted: TracedSites, encoded: Encoded) -> Row:
        """One request."""
        with answered(self.name):
            return wanted.read(self._traced, encoded, self._where)

    def write(self, inputs: dict[str, Any], places: Places) -> torch.Tensor:
        """One request in which rows are written at the last token; see :mod:`.patch`."""
        with answered(self.name):
            return write(self._traced, inputs, places, self._where)

    def _equally_long(self, data: Sequence[Sample], most: int) -> Iterator[list[int]]:
        """Numbers of samples that need no padding beside each other."""
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, sample in enumerate(data):
            alike[self._skeleton.encode(sample).length, len(sample.images)].append(number)
        for numbers in alike.values():
            for start in range(0, len(numbers), most):
                yield numbers[start : start + most]

    def patch_last(
        self,
        pairs: Sequence[Pair],
        sites: str | Sequence[str] = "resid_post",
        metric: Any = "refusal_log_odds",
        direction: Literal["denoise", "noise", "both"] = "both",
        *,
        rows: int = 8,
    ) -> PatchGrid:
        """Patch the last prompt token at every block; see :func:`~.patch.patch_last`."""
        return patch_last(self, self._skeleton, pairs, sites, metric, direction, rows)

    def __repr__(self) -> str:
        where = "NDIF" if self._where is True else self._where
        return f"RemoteLVLM({self.name!r}, on {where}, blocks={self.n_blocks})"


def _refused(name: str) -> UsageError:
    why = f"; {_REASONS[name]}" if name in _REASONS else ""
    return UsageError(f"a remote model has no {name}{why}. It can capture(...) and patch_last(...)")
