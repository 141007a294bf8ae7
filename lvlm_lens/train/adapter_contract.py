"""What a method that trains an adapter says: which rows it trains on and which trainer takes them.

:mod:`.running` and :mod:`.planning` ask this; :class:`~.adapter_method.AdapterMethod` joins it to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ..data import Sample
from .method import Job, Method, Row, Settings
from .targets import lora_config

if TYPE_CHECKING:
    from ..lens import LVLM


class AdapterContract(Method):
    """A method that trains a LoRA adapter in the blocks of a model.

    Class attributes:
        targets: projections that get the adapter, by their names in :class:`~lvlm_lens.models.anatomy.Family`
            (``q``, ``k``, ``v``, ``o``, ``down``); ``None`` for every linear layer of the part.
        sequences: sequences that a row puts through the model in a step (a preference: two).
        in_words: pictures are said in words first (:meth:`~lvlm_lens.data.Sample.without_images`).
        has_labels: rows hold the replies that are learnt; False where replies are drawn during training.
        files: weight files of the method's own that :meth:`prepare` leaves in the folder.
    """

    targets: ClassVar[tuple[str, ...] | None] = None
    sequences: ClassVar[int] = 1
    in_words: ClassVar[bool] = False
    has_labels: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = ()

    def rows(self, model: LVLM, data: Sequence[Sample], settings: Settings) -> list[Row]:
        """The rows, deterministic for a seed; written to the folder before training, so made once.

        Raises :class:`DataError` where the data give none, naming what they lack.
        """
        raise NotImplementedError

    def trainer(self, model: LVLM, rows: Sequence[Row], adapter: Any, arguments: Mapping[str, Any]) -> Any:
        """A ``transformers.Trainer`` (or subclass) on ``rows``, not yet started.

        Args:
            model: the base; rows: at least one; adapter: a ``peft.LoraConfig``.
            arguments: of ``TrainingArguments``; pass them on, and add the method's own.
        """
        raise NotImplementedError

    def further_samples(self) -> Sequence[Sample]:
        """Samples of other data that rows may be made of."""
        return ()

    def drawn(self, settings: Settings, samples: int) -> int:
        """Replies that the model writes before or during the training, for :meth:`plan`."""
        del settings, samples
        return 0

    def prepare(self, model: LVLM, rows: Sequence[Row], job: Job) -> None:
        """Anything before the adapter is put on: a first stage, new tokens.  Must be resumable by itself."""
        del model, rows, job

    def adapter(self, model: LVLM, settings: Settings) -> Any:
        """The ``peft.LoraConfig``; see :mod:`.targets`."""
        return lora_config(model.anatomy, model.model, settings, self.targets)

    def meaningless(self, control: str) -> str:
        """The same requests in words, of a method that trains on words."""
        if control == "text_only" and self.in_words:
            return "it trains on words alone, so this control is the method itself"
        return ""
