"""Weights as codes: quantise while loading (bitsandbytes), and load what others have quantised as it is.

Hooks see the outputs of quantised layers as of any other, so readings and patches need nothing more.  What needs
values of weights says so: the hash takes codes and scales, the lens wants the unembedding (which quantisers leave
alone, else it is unpacked), and the random twin is refused.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from ..errors import ModelError, UsageError
from .extras import needs

BITS = ("4bit", "8bit")
_PACKAGES = {"bitsandbytes": "bitsandbytes", "torchao": "torchao", "quanto": "optimum.quanto"}


def quantization_config(bits: str, dtype: Any) -> Any:
    """transformers' configuration for quantising while loading.

    Args:
        bits: ``4bit`` (NF4) or ``8bit`` (LLM.int8).
        dtype: of the computation; ``auto`` leaves it to the checkpoint.
    """
    if bits not in BITS:
        raise UsageError(f"quantize is {bits!r}; write one of {', '.join(BITS)}")
    needs("bitsandbytes", "adapters", f"--quantize {bits}")
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        # it says once a product that LLM.int8 computes in float16, which docs/limits.md says once
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = dtype if isinstance(dtype, torch.dtype) else None
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def check_stored(config: Any, label: str, bits: str | None) -> str | None:
    """The quantiser of a checkpoint that is quantised already, or ``None``; its package must be there.

    Raises:
        UsageError: ``bits`` asks to quantise it again.
        ModelError: the package is not installed.
    """
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    method = stored.get("quant_method") if isinstance(stored, dict) else getattr(stored, "quant_method", None)
    method = str(getattr(method, "value", method))
    if bits is not None:
        raise UsageError(f"model {label!r} is quantised already ({method}); leave --quantize out")
    package = _PACKAGES.get(method)
    if package is not None:
        from importlib.util import find_spec

        try:
            there = find_spec(package) is not None
        except ModuleNotFoundError:  # the package above it is not there either
            there = False
        if not there:
            install = "optimum-quanto" if method == "quanto" else package
            raise ModelError(f"model {label!r} is quantised with {method}, which is missing: pip install {install}")
    return method


def fit_to_cpu(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit layers in their first forward on CPUs with AVX512-BF16.

    Its packed form rounds the scales to bfloat16, and every look at the state dict (a hash, a checkpoint) unpacks it
    again and quantises doubly quantised scales anew: the numbers of the model would change with each.  It also fails on
    layers whose width is no multiple of its blocks.  On the ordinary path a model is the same on every machine.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def dense(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A weight as plain numbers ``[out, in]``, whatever keeps it.

    Raises :class:`ModelError` for codes that this project cannot unpack.
    """
    if hasattr(weight, "quant_state") or hasattr(weight, "SCB"):
        from transformers.integrations.bitsandbytes import dequantize_bnb_weight

        return dequantize_bnb_weight(weight, getattr(weight, "SCB", None)).to(dtype)
    if hasattr(weight, "__tensor_flatten__"):
        return weight.dequantize().to(dtype)
    if not weight.is_floating_point():
        raise ModelError(f"a weight of {weight.dtype} codes cannot be unpacked; load the model without quantisation")
    return weight


def float_dtype(head: nn.Module, norm: nn.Module) -> torch.dtype:
    """The dtype that a head takes: its weight's, or the norm's where the weight is codes."""
    weight = head.weight
    assert isinstance(weight, torch.Tensor)
    return weight.dtype if weight.is_floating_point() else next(norm.parameters()).dtype
