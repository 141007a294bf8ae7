"""A trained adapter as a defence: the same model with the adapter on.

The folder is one that ``lvlm-lens train`` wrote (its ``training.json`` tells the base, the data and the cost), or any
PEFT adapter whose layers stand in the blocks.  The guarded model is a copy of the given one that shares its weights, so
a second set of them is never held.  Nothing is added at inference but the adapter's own products.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..activations import Activations
from ..data import Sample
from ..errors import UsageError
from ..lens import LVLM
from ..train.attached import with_adapter
from ..train.folder import RECORD, read_training
from .base import Defense, Guarded


class Trained(Defense):
    """The model with a trained adapter.

    Args:
        folder: of the adapter.

    Attributes (after ``fit``): ``model_`` (the LVLM with the adapter), ``training_cost_`` (``steps``, ``flops``,
    ``tokens``, ``seconds``; empty for an adapter of unknown training).
    """

    name: ClassVar[str] = "trained"  # an instance bears its folder's name

    def __init__(self, folder: str = "") -> None:
        self.folder = folder
        if folder:
            self.name = Path(folder).expanduser().resolve().name  # type: ignore[misc]

    @property
    def approximation(self) -> str:  # type: ignore[override]
        """What the training method says of itself."""
        return str(self._record().get("method", {}).get("approximation", ""))

    def _record(self) -> dict[str, Any]:
        path = Path(self.folder).expanduser()
        return dict(read_training(path).record) if self.folder and (path / RECORD).is_file() else {}

    def check_model(self, model: LVLM) -> None:
        """Raise :class:`UsageError` where the adapter was trained on other weights."""
        super().check_model(model)
        if not self.folder:
            raise UsageError("a trained defence is a folder: give the one that `lvlm-lens train` wrote")
        record = self._record()
        base = record.get("base", {})
        if base and base["weights_hash"] != model.weights_hash():
            raise UsageError(
                f"adapter {self.name!r} was trained on {base['name']!r} (weights {base['weights_hash'][:12]}), and "
                f"this model has other weights ({model.weights_hash()[:12]}); load that base"
            )

    def fit(self, model: LVLM, data: Sequence[Sample]) -> Trained:
        """Put the adapter on a copy of the model; ``data`` is not looked at: the training had its own."""
        del data
        self.check_model(model)
        self.model_ = with_adapter(model, self.folder)
        self.training_cost_ = dict(self._record().get("cost", {}))
        return self

    def guard(self, model: LVLM | Guarded) -> Guarded:
        """The model with the adapter, metered.

        Raises:
            UsageError: before ``fit``, or around another guard: an adapter is in the model, so it stands innermost.
        """
        if isinstance(model, Guarded):
            raise UsageError(f"adapter {self.name!r} changes the model itself; name it last in a stack of defences")
        if not hasattr(self, "model_"):
            raise UsageError(f"defence {self.name!r} is not fitted yet; call fit(model, data) first")
        self.check_model(model)
        return Guarded(self, self.model_)

    def capture(
        self, model: LVLM, data: Sequence[Sample], sites: Any = "resid_post", positions: str = "last", **options: Any
    ) -> Activations:
        """Activations of the model with the adapter."""
        return super().capture(self.model_, data, sites, positions, **options)
