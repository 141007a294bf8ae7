"""Where an adapter sits: from ``where`` and ``blocks`` to exact names of layers, and a table of them.

A list such as ``["q_proj", "v_proj"]`` hits every layer that ends so, the vision tower's too, and PEFT refuses to join
``layers_to_transform`` with a pattern.  So the part is found in the model's anatomy and written out as one regular
expression over whole names, which PEFT matches in full.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from ..config import parse_blocks
from ..errors import ModelError
from ..models.anatomy import Anatomy
from .method import Settings

PARTS = ("language", "projector", "vision")


def part_layers(
    anatomy: Anatomy, model: nn.Module, part: str, blocks: str | None = None, targets: Iterable[str] | None = None
) -> list[str]:
    """Names of a part's linear layers, from the model's root.

    Args:
        anatomy, model: of the base.
        part: one of :data:`PARTS`.
        blocks: only these, as :func:`~lvlm_lens.config.parse_blocks` reads them; of ``language`` and ``vision``.
        targets: only these projections, by their names in the family's row; the vision tower's by the same words.

    Raises:
        ModelError: the model has no such part, or no such layer in it.
        UsageError: a block that does not exist.
    """
    stacks = {"language": anatomy.blocks, "vision": anatomy.vision_blocks}
    if part == "projector":
        roots: list[nn.Module] = [] if anatomy.projector is None else [anatomy.projector]
    else:
        stack = stacks[part]
        numbers = parse_blocks(blocks, len(stack)) if stack else []
        roots = [stack[number] for number in (range(len(stack)) if numbers is None else numbers)]
    if not roots:
        raise ModelError(f"this model has no {part}: an adapter for it has nowhere to sit; write --where language")
    inside = {id(module) for root in roots for module in root.modules() if isinstance(module, nn.Linear)}
    wanted = _endings(anatomy, targets)
    names = [
        name
        for name, module in model.named_modules()
        if id(module) in inside and (part == "projector" or wanted is None or name.rsplit(".", 1)[-1] in wanted)
    ]
    if not names:
        raise ModelError(f"no linear layer of the {part} is one of {', '.join(sorted(wanted or ()))}")
    return names


def _endings(anatomy: Anatomy, targets: Iterable[str] | None) -> set[str] | None:
    """Last parts of layer names: the family's own words, and the usual ones of towers."""
    if targets is None:
        return None
    found: set[str] = set()
    for target in targets:
        own = getattr(anatomy.family, target, None)
        found |= {f"{target}_proj", *([own] if own else [])}
    return found


def chosen_layers(
    anatomy: Anatomy, model: nn.Module, settings: Settings, targets: Iterable[str] | None = None
) -> dict[str, list[str]]:
    """Layer names by part for these settings."""
    there = {"language": True, "projector": anatomy.projector is not None, "vision": bool(anatomy.vision_blocks)}
    wanted: list[str] = [part for part in PARTS if there[part]] if settings.where == "all" else [settings.where]
    return {part: part_layers(anatomy, model, part, settings.blocks, targets) for part in wanted}


def pattern(names: Sequence[str]) -> str:
    """One regular expression that matches these names in full and nothing else of the model.

    Names that differ in one number only share a branch: ``layers\\.(3|4|5)\\.self_attn\\.q_proj``.
    """
    branches: dict[tuple[str, str], list[str]] = {}
    for name in names:
        found = re.match(r"(.*?\.)(\d+)(\..*)", name)
        key = (found[1], found[3]) if found else (name, "")
        branches.setdefault(key, []).append(found[2] if found else "")
    ends: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (head, tail), numbers in branches.items():
        ends.setdefault((head, tuple(numbers)), []).append(tail)
    parts = []
    for (head, listed), tails in ends.items():
        if listed == ("",):
            parts.append(re.escape(head))
        else:
            parts.append(f"{re.escape(head)}({'|'.join(listed)})({'|'.join(re.escape(tail) for tail in tails)})")
    return "|".join(f"({part})" for part in parts)


def lora_config(anatomy: Anatomy, model: nn.Module, settings: Settings, targets: Iterable[str] | None = None) -> Any:
    """The ``peft.LoraConfig``: rank, alpha twice the rank, no dropout, and exactly these layers."""
    from peft import LoraConfig

    names = [name for found in chosen_layers(anatomy, model, settings, targets).values() for name in found]
    return LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        lora_dropout=0.0,
        target_modules=pattern(names),
        task_type="CAUSAL_LM",
    )


def sitting(model: nn.Module) -> list[str]:
    """Names of the layers that carry an adapter, as in the model without it."""
    names = []
    for name, module in model.named_modules():
        if hasattr(module, "base_layer") and hasattr(module, "lora_A"):
            names.append(name.removeprefix("base_model.model."))
    return names


def seat_table(names: Sequence[str], anatomy_parts: dict[str, str]) -> list[dict[str, Any]]:
    """Where each adapter sits, a row a part and kind of layer.

    Args:
        names: of the layers with an adapter.
        anatomy_parts: part to the prefix of its names.

    Returns:
        Rows of ``part``, ``layer`` (last word of the name), ``count``, ``blocks`` (their numbers, ``0-5,8``).
    """
    counts: Counter[tuple[str, str]] = Counter()
    blocks: dict[tuple[str, str], set[int]] = {}
    for name in names:
        part = next((part for part, prefix in anatomy_parts.items() if name.startswith(prefix)), "elsewhere")
        key = (part, name.rsplit(".", 1)[-1])
        counts[key] += 1
        number = re.search(r"\.(\d+)\.", name[len(anatomy_parts.get(part, "")) :])
        if number:
            blocks.setdefault(key, set()).add(int(number[1]))
    return [
        {"part": part, "layer": layer, "count": count, "blocks": ranges(blocks.get((part, layer), set()))}
        for (part, layer), count in counts.items()
    ]


def ranges(numbers: Iterable[int]) -> str:
    """Whole numbers as ``0-5,8``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def part_prefixes(anatomy: Anatomy, model: nn.Module) -> dict[str, str]:
    """Part to the beginning of its layers' names in ``model``."""
    roots = {"language": anatomy.decoder, "projector": anatomy.projector, "vision": anatomy.vision}
    names = {id(module): name for name, module in model.named_modules()}
    # a projector may stand inside the tower (Qwen's merger), so the longer name is asked first
    found = {part: names[id(root)] + "." for part, root in roots.items() if root is not None and id(root) in names}
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))
