"""Every number of the recipe in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

from .adapters import LINEAR

BFLOAT16 = True
"""Compute in bfloat16 (autocast) with parameters and optimizer in float32.

On a CPU with bf16 units (avx512_bf16, amx_bf16) a step takes half as long; without them set it to False.
"""


@dataclass(frozen=True)
class TextStage:
    """``smol-text``: LoRA on contrasts."""

    steps: int = 450
    rate: float = 5e-4
    rank: int = 8
    targets: tuple[str, ...] = tuple(LINEAR)
    packs: int = 4
    """Rows a step."""
    chats: int = 5
    """Chats in a row."""
    harmful: int = 2
    """Harmful ones among them; with half of them the model refused too much of what was held out."""
    answer_tokens: int = 16
    """Of a harmless answer, the first so many tokens."""
    decay: float = 0.0
    log_every: int = 75


@dataclass(frozen=True)
class ProjectorStage:
    """The projector alone."""

    steps: int = 600
    rate: float = 2e-3
    batch: int = 64
    pictures_per_thing: int = 40
    cards_per_thing: int = 6
    log_every: int = 100


def _mix() -> dict[str, float]:
    return {
        "joint": 0.64,
        "use": 0.05,
        "intent": 0.06,
        "naming": 0.08,
        "describing": 0.04,
        "kind": 0.01,
        "fact": 0.12,
    }


@dataclass(frozen=True)
class PictureStage:
    """``smol``: pictures of ``mini``'s world, mostly harmless requests, text replay."""

    steps: int = 450
    rate: float = 7e-4
    projector_rate: float = 3e-4
    rank: int = 12
    targets: tuple[str, ...] = tuple(LINEAR)
    pictures: int = 4
    """Pictures a step."""
    questions: int = 8
    """Chats about each picture."""
    harmful_share: float = 0.3
    mix: dict[str, float] = field(default_factory=_mix)
    knowledge_share: float = 0.06
    """Share of questions about a thing that the base itself answered in words."""
    answer_tokens: int = 16
    contrasts: int = 4
    """Chats of ``smol-text``'s contrasts in a step's row of text, half of them harmful."""
    told: int = 4
    """Chats of ``mini``'s world told in words in that row."""
    replay_mix: dict[str, float] = field(default_factory=lambda: {"joint": 0.7, "intent": 0.1, "fact": 0.2})
    replay_weight: float = 0.5
    held_texts: int = 60
    """Held-out requests in words that a validation looks at."""
    log_every: int = 50
    """Steps between two validations, each of which saves the weights."""
