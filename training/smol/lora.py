"""LoRA computed in bfloat16 from end to end: the base's weights, the activations and both small products.

PEFT keeps the base in float32 here and casts on the way; a step of the picture stage took 4.9 s of a core so and
2.8 s with these layers.  The trained matrices stay in float32, and the files are PEFT's own (:func:`save_lora`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from .adapters import BASE_NAME

SCALE = 2.0
"""``alpha / rank``."""
_PREFIX = "base_model.model."


class _Product(torch.autograd.Function):
    """``x W' + (x A') (scale B)'`` with the products of the two small matrices added in place."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        small_a, small_b = a.to(x.dtype), (SCALE * b).to(x.dtype)
        inner = rows @ small_a.T
        out = rows @ weight.T
        out.addmm_(inner, small_b.T)
        ctx.save_for_backward(rows, weight, small_a, small_b, inner)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight, small_a, small_b, inner = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        back = grad @ small_b
        onward = grad @ weight
        onward.addmm_(back, small_a)
        return (
            onward.view(*grads[0].shape[:-1], -1),
            None,
            (back.T @ rows).float(),
            SCALE * (grad.T @ inner).float(),
        )


class LoraLinear(torch.nn.Module):
    """A frozen bfloat16 linear map with a trained low-rank change beside it."""

    def __init__(self, frozen: torch.nn.Linear, rank: int) -> None:
        super().__init__()
        self.weight = frozen.weight.detach()
        self.a = torch.nn.Parameter(torch.randn(rank, frozen.in_features) / frozen.in_features**0.5)
        self.b = torch.nn.Parameter(torch.zeros(frozen.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        return _Product.apply(x, self.weight, self.a, self.b)


def with_lora(base: Path, rank: int, targets: tuple[str, ...], start: Path | None = None) -> LlamaForCausalLM:
    """The frozen base in bfloat16 whose ``targets`` are :class:`LoraLinear`.

    ``start`` is a PEFT folder of the same or a lower rank, whose matrices fill the first rows.
    """
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.bfloat16, attn_implementation="eager")
    model.requires_grad_(False)
    known = load_file(start / "adapter_model.safetensors") if start else {}
    for name, module in list(model.named_modules()):
        parent, _, last = name.rpartition(".")
        if last not in targets:
            continue
        made = LoraLinear(module, rank)
        if known:
            a, b = (known[f"{_PREFIX}{name}.lora_{which}.weight"].float() for which in "AB")
            made.a.data[: len(a)], made.b.data[:, : len(a)] = a, b
        setattr(model.get_submodule(parent), last, made)
    return model


def save_lora(model: LlamaForCausalLM, rank: int, targets: tuple[str, ...], folder: Path) -> None:
    """Write PEFT's folder with the matrices in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    LoraConfig(
        r=rank, lora_alpha=int(SCALE * rank), target_modules=list(targets), lora_dropout=0.0, bias="none",
        task_type="CAUSAL_LM", base_model_name_or_path=BASE_NAME, inference_mode=True,
    ).save_pretrained(folder)  # fmt: skip
    tensors = {
        f"{_PREFIX}{name}.lora_{which}.weight": tensor.detach().half().contiguous()
        for name, module in model.named_modules()
        if isinstance(module, LoraLinear)
        for which, tensor in (("A", module.a), ("B", module.b))
    }
    path = folder / "adapter_model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)
