"""What a checkpoint's own processor makes of a sample, called as its documentation says: the oracle of the check.

Nothing here is shared with :mod:`~lvlm_lens.models.encode`, which is what the check is about: the chat is
rendered and tokenised in one call of transformers, and its output goes to the model as it is.
"""

from __future__ import annotations

from typing import Any

import torch

from ..data import Sample
from ..models.loaded import LoadedModel


def untouched(model: LoadedModel, sample: Sample) -> dict[str, Any]:
    """Keyword arguments of the model's forward for one sample, on its device, floats in its dtype.

    A checkpoint without a chat template takes the prompt that the toolkit writes for it.
    """
    pictures = [source.load() for source in sample.images]
    processor, tokenizer = model.processor, model.tokenizer
    content: Any = sample.text
    if processor is not None:
        content = [{"type": "image", "image": picture} for picture in pictures]
        content.append({"type": "text", "text": sample.text})
    chat = [{"role": "user", "content": content}]
    whole: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    if getattr(processor, "chat_template", None):
        made = processor.apply_chat_template(chat, add_generation_prompt=True, **whole)  # type: ignore[union-attr]
    elif getattr(tokenizer, "chat_template", None) and processor is None:
        made = tokenizer.apply_chat_template(chat, add_generation_prompt=True, **whole)
    else:
        prompt = model.encoder([sample], system="").prompts[0]
        shown = {"images": pictures} if pictures else {}
        made = (processor or tokenizer)(text=[prompt], return_tensors="pt", **shown)
    return {name: _placed(value, model) for name, value in made.items()}


def _placed(value: Any, model: LoadedModel) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(model.device, model.dtype if value.is_floating_point() else None)
