"""The neighbours: TransformerLens and nnsight on the same weights.

``to_transformer_lens`` hands back a ``TransformerBridge`` and ``to_nnsight`` an ``NNsight`` around the
model.  Both instrument the modules that they are given, so they get a copy unless told otherwise.
Reading through nnsight's tracing: :mod:`.traced`.
"""

from __future__ import annotations

import copy
import tempfile
from typing import Any

from ..errors import ModelError
from ..models.loaded import LoadedModel


def to_transformer_lens(model: LoadedModel) -> Any:
    """A ``TransformerBridge`` on a copy of the weights; pictures go in as ``pixel_values=`` and the like.

    Raises :class:`ModelError` for a family that TransformerLens does not have.
    """
    from transformer_lens.model_bridge.sources.transformers import boot
    from transformers import AutoTokenizer

    owner = model.processor if model.processor is not None else model.tokenizer
    inner = copy.deepcopy(model.model)
    inner.config.architectures = [type(model.model).__name__]
    with tempfile.TemporaryDirectory() as folder:  # it reads processor and tokenizer from their place on disk
        inner.config.save_pretrained(folder)
        owner.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        try:
            return boot(folder, hf_model=inner, tokenizer=tokenizer, device=str(model.device), dtype=model.dtype)
        except (ValueError, KeyError, AttributeError, NotImplementedError, ImportError) as error:
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise ModelError(
                f"TransformerLens cannot take family {model.anatomy.family.model_type!r}: {reason}"
            ) from error


def to_nnsight(model: LoadedModel, in_place: bool = False) -> Any:
    """An ``NNsight`` around a copy of the model, or around the model itself with ``in_place``.

    Trace with ``model.forward_inputs(encoded)``: ``with traced.trace(**inputs): ...``.
    """
    import nnsight

    return nnsight.NNsight(model.model if in_place else copy.deepcopy(model.model))
