"""LoRA adapters: put on, saved in PEFT's format in float16, measured against the base."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def with_adapter(base: Path, rank: int, targets: list[str], start: Path | None = None) -> PeftModel:
    """The base in float32 with a fresh adapter of ``rank`` and ``alpha = 2 rank``.

    ``start`` is an adapter of lower rank whose matrices fill the first rows, so that the new one begins as it ended.
    """
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=targets, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, config)
    if start is not None:
        known = load_file(start / "adapter_model.safetensors")
        with torch.no_grad():
            for name, tensor in adapted.named_parameters():
                key = name.replace(".default", "")
                if key in known:
                    old = known[key].float()
                    if "lora_A" in key:
                        tensor[: old.shape[0]] = old
                    else:
                        tensor[:, : old.shape[1]] = old
    return adapted


def save_adapter(adapted: PeftModel, folder: Path) -> None:
    """Write PEFT's folder with the matrices in float16."""
    adapted.peft_config["default"].base_model_name_or_path = BASE_NAME  # and not where it lay
    adapted.save_pretrained(folder, save_embedding_layers=False)  # "auto" asks the hub for the base
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    path.chmod(0o644)
