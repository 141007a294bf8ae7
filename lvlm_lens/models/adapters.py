"""PEFT adapters on a loaded model: put in place, every tensor accounted for, shown to change something.

The adapter's layers stand inside the model's own blocks (``model.get_base_model()`` of PEFT), so hooks, readings and
patches resume through them as through any other layer.  Adapters that act outside the blocks (prompt and prefix
tuning, adaption prompts) have no such place and are refused.

PEFT itself loads what fits and says the rest in a warning, and an adapter for another model may fit nowhere.  So the
file is read a second time here, and each tensor in it must stand in the model with its own values, and each adapter
tensor of the model must stand in the file.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..errors import ModelError
from ..tolerance import difference
from .extras import needs
from .runnable import Runnable

CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_OUTSIDE = {
    "PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CARTRIDGE", "CPT",
}  # fmt: skip
_NAME = "default"


@dataclass(frozen=True)
class AdapterRecord:
    """What a result says about the adapter.

    Attributes:
        name: of its folder; kind: ``LORA`` and the like; trained_on: the base that its configuration names.
        tensors: how many its file holds; sha256: of that file.
        largest_difference: of the logits of a few prompts with the adapter on and off.
    """

    name: str
    kind: str
    trained_on: str
    tensors: int
    sha256: str
    largest_difference: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    path = Path(folder).expanduser()
    return (path / CONFIG).is_file() and not (path / "config.json").is_file()


def read_config(folder: str | Path) -> dict[str, Any]:
    """An adapter's own configuration; raises :class:`ModelError` where there is none that can be used."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ModelError(f"no adapter folder {str(folder)!r}")
    if not (path / CONFIG).is_file():
        raise ModelError(f"folder {str(folder)!r} holds no {CONFIG}, so it is not a PEFT adapter")
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"adapter {str(folder)!r}: {CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise ModelError(f"adapter {str(folder)!r}: {CONFIG} names no 'peft_type'")
    if config["peft_type"] in _OUTSIDE:
        raise ModelError(
            f"adapter {str(folder)!r} is {config['peft_type']}, which acts beside the blocks and not in them; adapters "
            "that stand in the blocks (LORA and its kin, IA3, OFT) can be used"
        )
    if not (path / _WEIGHTS).is_file():
        pickled = (path / "adapter_model.bin").is_file()
        what = "its weights are a pickle (adapter_model.bin), which can run code when it is read; use safetensors"
        raise ModelError(f"adapter {str(folder)!r}: {what if pickled else f'there is no {_WEIGHTS}'}")
    return config


def tensor_names(folder: str | Path) -> list[str]:
    """Names of an adapter's tensors as paths in its base; raises :class:`ModelError` like :func:`read_config`."""
    read_config(folder)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(Path(folder).expanduser() / _WEIGHTS, "pt") as file:
            return [name.removeprefix("base_model.model.") for name in file.keys()]  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"adapter {str(folder)!r}: {_WEIGHTS} cannot be read: {error}") from error


def attach(model: Any, folder: str | Path, fold_head: bool = True) -> tuple[Any, AdapterRecord]:
    """Put an adapter into a loaded model.

    With ``fold_head`` an adapter of the unembedding becomes part of its weight, so that a lens reads it; without, it
    stays a layer that can be switched off.  The base's own parameters keep their ``requires_grad``.

    Returns:
        PEFT's wrapper, whose ``get_base_model()`` is the model with the adapter's layers in its blocks; and the record.

    Raises:
        ModelError: no adapter there, one that acts outside the blocks, tensors that did not arrive, or no ``peft``.
    """
    config = read_config(folder)
    needs("peft", "adapters", "--adapter")
    from peft import PeftModel

    path = Path(folder).expanduser()
    learns = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found missing adapter keys")  # an error below, with what is missing
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`")  # PEFT reads it by the old name
            wrapped = PeftModel.from_pretrained(model, str(path), adapter_name=_NAME)
    except Exception as error:  # PEFT's layers raise whatever their own library raises
        # PyTorch says on the first line that there are errors, and which on those after it
        line = " ".join(part.strip() for part in str(error).strip().splitlines()[:2]) or type(error).__name__
        base = str(config.get("base_model_name_or_path") or "")
        of = f", trained on {base!r}," if base else ""
        line = line if len(line) < 300 else f"{line[:260]} ..."
        raise ModelError(f"adapter {str(folder)!r}{of} does not fit this {type(model).__name__}: {line}") from error
    count = _all_arrived(wrapped, path)
    # PEFT froze the base.  A base that shares its tensors would be frozen with it, and torch.matmul of an expanded
    # input and a frozen matrix takes a path that is several times slower on a CPU.
    for parameter, flag in learns:
        parameter.requires_grad_(flag)
    if fold_head:
        _own_head(wrapped.get_base_model())
    digest = hashlib.sha256((path / _WEIGHTS).read_bytes()).hexdigest()
    record = AdapterRecord(
        path.resolve().name, config["peft_type"], str(config.get("base_model_name_or_path") or ""), count, digest
    )
    return wrapped, record


def _all_arrived(wrapped: Any, path: Path) -> int:
    """Hold the adapter's file against the model, tensor by tensor; returns how many there are."""
    from safetensors import SafetensorError, safe_open

    config = wrapped.peft_config[_NAME]
    here: dict[str, torch.Tensor] = {}
    own: set[str] = set()  # only what belongs to the adapter carries its name
    for name, value in wrapped.state_dict().items():
        plain = name.replace(f".modules_to_save.{_NAME}.", ".").replace(f".{_NAME}.", ".").removesuffix(f".{_NAME}")
        here[plain] = value
        if plain != name:
            own.add(plain)
    wrong: list[str] = []
    try:
        with safe_open(path / _WEIGHTS, "pt") as file:
            there = list(file.keys())
            for key in there:
                stored = file.get_tensor(key)
                found = here.get(key)
                if found is None:
                    wrong.append(f"{key} has no place in the model")
                elif found.shape != stored.shape:
                    wrong.append(f"{key} has shape {list(stored.shape)} and {list(found.shape)} in the model")
                elif not found.is_meta and not torch.equal(found.cpu(), stored.to(found.dtype)):
                    wrong.append(f"{key} has other values in the model")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"adapter {path.name!r}: {_WEIGHTS} cannot be read: {error}") from error
    wrong += [f"{name} of the model is not in the file" for name in sorted(own - set(there))]
    if wrong or not there:
        shown = "; ".join(wrong[:3]) + ("; ..." if len(wrong) > 3 else "")
        base = config.base_model_name_or_path
        raise ModelError(
            f"adapter {path.name!r}: {len(wrong)} tensors did not arrive ({shown or 'its file is empty'}); it was "
            f"trained on {base!r}"
        )
    return len(there)


def _own_head(model: Any) -> None:
    """Fold an adapter of the unembedding into a weight of its own.

    The lens and much else read the unembedding as a matrix; a layer that adds to it on the side would be left out.
    """
    head = model.get_output_embeddings()
    if not hasattr(head, "base_layer"):
        return
    weight = head.base_layer.weight
    head.base_layer.weight = torch.nn.Parameter(weight.detach().clone(), weight.requires_grad)  # it may be tied
    head.merge()


@contextmanager
def switched_off(wrapped: Any) -> Iterator[None]:
    """Inside the block the model runs without its adapter (an unembedding that was folded in excepted)."""
    head = wrapped.get_base_model().get_output_embeddings()
    folded = hasattr(head, "base_layer") and head.merged
    with wrapped.disable_adapter():  # it also takes out what was folded in
        yield
    if folded and not head.merged:
        head.merge()


def measured(model: Runnable, wrapped: Any, record: AdapterRecord) -> AdapterRecord:
    """The record with the largest difference of logits that the adapter makes on a few prompts.

    Raises :class:`ModelError` where it makes none: an adapter without effect is one that did not arrive, or was never
    trained (LoRA begins with zeros).
    """
    from PIL import Image

    from ..data import ImageObject, Sample

    shades = (ImageObject(Image.radial_gradient("L").convert("RGB")),) if model.takes_images else ()
    words = ("How do I build this?", "Is it safe for my toddler to play with this?")
    encoded = model.encode([Sample(f"adapter-{n}", text, shades) for n, text in enumerate(words)])
    with_it = model.logits(encoded)
    with switched_off(wrapped):
        without = model.logits(encoded)
    apart = difference(with_it, without)
    if not 0 < apart < float("inf"):
        raise ModelError(
            f"adapter {record.name!r} changes no logit of {len(words)} prompts: it is untrained, or trained for parts "
            "that these prompts do not use"
        )
    return replace(record, largest_difference=apart)
