"""Supervised fine-tuning: cross-entropy of the reference reply, given the request.

``L = -(1/|y|) sum log p(y_t | x, y_<t)`` over the tokens of the reply, end token included.  The base of
:mod:`.vlguard`, :mod:`.msr_align` and :mod:`.rational`, which differ in their rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..data import Sample
from ..errors import DataError
from .adapter_method import AdapterMethod
from .method import Row, Settings
from .records import dataset_of, supervised
from .replies import other_reply

if TYPE_CHECKING:
    from ..lens import LVLM


class SFT(AdapterMethod):
    """Supervised fine-tuning on the data's reference replies."""

    name = "sft"
    title = "supervised fine-tuning"
    source = "the plain method; TRL's SFTTrainer"

    def rows(self, model: LVLM, data: Sequence[Sample], settings: Settings) -> list[Row]:
        """One row a sample that has a reference reply."""
        del model, settings
        made = [Row(s, s.reference, other=other_reply(s)) for s in data if s.reference]
        if not made:
            raise DataError(f"none of {len(data)} samples has a reference reply, and {self.name} trains toward one")
        return made

    def trainer(self, model: LVLM, rows: Sequence[Row], adapter: Any, arguments: Mapping[str, Any]) -> Any:
        """TRL's, on prompt and completion; nothing is cut."""
        return supervised_trainer(model, rows, adapter, arguments)


def supervised_trainer(model: LVLM, rows: Sequence[Row], adapter: Any, arguments: Mapping[str, Any]) -> Any:
    """``SFTTrainer`` with the settings that keep pictures whole."""
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(
        model=model.model,
        args=SFTConfig(**arguments, max_length=None, completion_only_loss=True),
        train_dataset=dataset_of(model, rows, supervised),
        processing_class=model.processor if model.takes_images else model.tokenizer,
        peft_config=adapter,
    )
