"""A second model around the same weights: modules of its own, every tensor of the base shared.

So a base and its trained version, or a base and the one that is being trained, are never held twice.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from ..lens import LVLM
from ..models.adapters import attach, measured, read_config


def twin_of(model: LVLM) -> LVLM:
    """The same model in modules of its own; what is put into them (an adapter) does not reach ``model``."""
    return _around(_shared(model), model, model.name)


def with_adapter(model: LVLM, folder: str | Path) -> LVLM:
    """A copy of ``model`` with the adapter in its blocks; both share the base's weights.

    Raises :class:`~lvlm_lens.errors.ModelError` as :func:`lvlm_lens.models.adapters.attach` does.
    """
    read_config(folder)
    wrapped, record = attach(_shared(model), folder)
    made = _around(wrapped.get_base_model(), model, f"{model.name}+{record.name}")
    made.adapter = measured(made, wrapped, record)
    return made


def _shared(model: LVLM) -> Any:
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.model.parameters(), *model.model.buffers())}
    return copy.deepcopy(model.model, memo)


def _around(inner: Any, model: LVLM, name: str) -> LVLM:
    owner = model.processor if model.processor is not None else model.tokenizer
    made = LVLM(inner, owner, name=name, system=model.encoder.system)
    made.encoder.special_tokens = model.encoder.special_tokens
    made.revision, made.warnings, made.base, made.quantized = (
        model.revision,
        model.warnings,
        model.base,
        model.quantized,
    )
    return made
