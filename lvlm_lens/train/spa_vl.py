"""SPA-VL (arXiv 2406.12030): direct preference optimisation on a better and a worse reply to the same picture.

``L = -log sigmoid(beta * ((log p(y+) - log p_ref(y+)) - (log p(y-) - log p_ref(y-))))``, sums over the whole reply,
beta 0.1.  The reference is the model with the adapter off, so the first loss is exactly ln 2: LoRA begins as nothing.
The release has PPO too, for which TRL has no trainer any more; :mod:`.safegrpo` is the nearest thing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data import Sample
from ..errors import DataError
from .adapter_method import AdapterMethod
from .method import Row, Settings
from .records import dataset_of, preference
from .replies import other_reply

if TYPE_CHECKING:
    from ..lens import LVLM


@dataclass(eq=False, repr=False)
class SPAVL(AdapterMethod):
    """DPO as SPA-VL does it.

    Args:
        beta: how far the model may go from its reference; 0.1 as published.
    """

    name = "spa_vl"
    title = "SPA-VL: DPO"
    source = "arXiv 2406.12030; EchoseChen/SPA-VL-RLHF @ cade637 (script and loss read)"
    approximation = ""
    rate = 2e-5
    sequences = 2

    beta: float = 0.1

    def rows(self, model: LVLM, data: Sequence[Sample], settings: Settings) -> list[Row]:
        """One row a sample with two replies; of the embedded set the worse one is that of the wrong verdict."""
        del model, settings
        made = []
        for sample in data:
            worse = sample.meta.get("rejected") or other_reply(sample)
            if sample.reference and worse and worse != sample.reference:
                made.append(Row(sample, sample.reference, worse=str(worse)))
        if not made:
            raise DataError(f"none of {len(data)} samples has a better and a worse reply (reference, meta['rejected'])")
        return made

    def trainer(self, model: LVLM, rows: Sequence[Row], adapter: Any, arguments: Mapping[str, Any]) -> Any:
        """TRL's DPOTrainer; the reference is the adapter off."""
        from trl import DPOConfig, DPOTrainer

        return DPOTrainer(
            model=model.model,
            args=DPOConfig(**arguments, beta=self.beta, max_length=None),
            train_dataset=dataset_of(model, rows, preference),
            processing_class=model.processor if model.takes_images else model.tokenizer,
            peft_config=adapter,
        )
