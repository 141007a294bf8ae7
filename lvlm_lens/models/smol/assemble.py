"""``smol-text`` and ``smol`` as plain checkpoint folders, from the base and what ships with the package.

A folder's name carries a hash of everything it was made of, so a new adapter or another base is never mistaken
for the old one.  Folders of other hashes stay: another version of the toolkit may be using them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ...errors import ModelError
from ..mini import mini_path
from .adapter import merge_adapter
from .store import ORIGIN, locked, new_folder, no_bars

HERE = Path(__file__).parent
TEXT_ADAPTER = HERE / "text_adapter"
PICTURE_ADAPTER = HERE / "picture_adapter"
PROJECTOR = HERE / "projector.safetensors"
TEMPLATE = HERE / "chat_template.jinja"
"""SmolLM2's template, word for word, with a place for pictures."""

IMAGE_TOKEN = "<image>"
_MEGABYTES = 600


def text_folder(base: Path) -> Path:
    """The base with the text adapter; made where it is not there yet."""
    return _made("smol-text", base, [TEXT_ADAPTER], _write_text)


def picture_folder(base: Path) -> Path:
    """Tower, projector and the base with the picture adapter; made where it is not there yet."""
    return _made("smol", base, [PICTURE_ADAPTER, PROJECTOR, TEMPLATE, mini_path()], _write_picture)


def _made(name: str, base: Path, parts: list[Path], write: Callable[[Path, Path], None]) -> Path:
    digest = hashlib.sha256((base / ORIGIN).read_bytes())
    for part in parts:
        if not part.exists():
            raise ModelError(f"model {name!r}: {part.name} is missing from this installation; install lvlm-lens again")
        for file in sorted(part.iterdir()) if part.is_dir() else [part]:
            digest.update(file.read_bytes())
    target = base.parent / f"{name}-{digest.hexdigest()[:12]}"
    if target.is_dir():
        return target
    with locked():
        if not target.is_dir():  # another process may have made it while this one waited
            with new_folder(target, _MEGABYTES) as building, no_bars():
                write(base, building)
                shutil.copy(base / ORIGIN, building)
    return target


def _write_text(base: Path, into: Path) -> None:
    weights = load_file(base / "model.safetensors")
    merge_adapter(weights, TEXT_ADAPTER)
    save_file(weights, into / "model.safetensors", metadata={"format": "pt"})
    for file in base.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copy(file, into)


def _write_picture(base: Path, into: Path) -> None:
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoTokenizer,
        GenerationConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    seen = AutoConfig.from_pretrained(mini_path())
    text = AutoConfig.from_pretrained(base)
    text.vocab_size = len(tokenizer)
    config = LlavaConfig(
        vision_config=seen.vision_config,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=seen.image_seq_length,
        vision_feature_layer=seen.vision_feature_layer,
        vision_feature_select_strategy=seen.vision_feature_select_strategy,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    weights = load_file(base / "model.safetensors")
    merge_adapter(weights, PICTURE_ADAPTER)
    rows = weights["model.embed_tokens.weight"]
    # the placeholder's row is the mean row: its logit is then the mean logit, which is never the largest
    weights["model.embed_tokens.weight"] = torch.cat([rows, rows.mean(0, keepdim=True)])
    tower = load_file(mini_path() / "model.safetensors")
    prefix = "vision_tower."
    _fill(model.model.language_model, {name.removeprefix("model."): tensor for name, tensor in weights.items()})
    _fill(model.model.multi_modal_projector, load_file(PROJECTOR))
    _fill(model.model.vision_tower, {k.removeprefix(prefix): v for k, v in tower.items() if k.startswith(prefix)})
    model.tie_weights()
    model.generation_config = GenerationConfig.from_pretrained(base, do_sample=False)
    model.save_pretrained(into)
    LlavaProcessor(
        image_processor=AutoImageProcessor.from_pretrained(mini_path()),
        tokenizer=tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=tokenizer.chat_template,
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=0,
    ).save_pretrained(into)


def _fill(module: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Every tensor of the module from ``weights``, none missing and none left over."""
    module.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True, strict=True)
