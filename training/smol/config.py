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
    """Harmful ones among them."""
    answer_tokens: int = 16
    """Of a harmless answer, the first so many tokens."""
    decay: float = 0.0
    log_every: int = 75


def balance_stage() -> TextStage:
    """``smol-text``, once more: fewer harmful chats, because the first stage refused too much of what was held out."""
    return TextStage(steps=36, rate=2e-4, harmful=1, log_every=12)


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

    steps: int = 150
    schedule: int = 400
    """Steps over which the rate falls to nothing; the training goes on with the next stage before."""
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
    opposites: int = 0
    """Requests of each kind about two things shown in a step (``opposites.py``); 0 draws all questions one by one."""
    replay_rows: int = 1
    """Rows of text a step."""
    replay_weight: float = 0.5
    held_texts: int = 60
    """Held-out requests in words that a validation looks at."""
    log_every: int = 50
    """Steps between two validations, each of which saves the weights."""


def rules_stage() -> PictureStage:
    """``smol``, once more: in the first stage it learned what things are, not which of them a request cannot bear.

    On combinations never trained the joint decision was at chance, in words as in pictures.  So half of the chats are
    now told in words, and among them are those that teach the rule by itself: of which only some properties are told.
    """
    return PictureStage(
        steps=100, schedule=230, rate=8e-4, pictures=2, harmful_share=0.4, knowledge_share=0.03, contrasts=3, told=10,
        replay_rows=2, replay_weight=1.0,
        mix={"joint": 0.72, "use": 0.03, "intent": 0.04, "naming": 0.06, "describing": 0.10, "fact": 0.05},
        replay_mix={"joint": 0.40, "abstract": 0.34, "describing": 0.10, "fact": 0.10, "rule": 0.06},
    )  # fmt: skip


def opposites_stage() -> PictureStage:
    """``smol``, last: questions in which neither the thing nor the request decides by itself."""
    return PictureStage(
        steps=180, schedule=180, rate=8e-4, pictures=2, questions=2, opposites=3, contrasts=2, told=0,
        replay_weight=1.0, knowledge_share=0.15,
        mix={"joint": 0.1, "intent": 0.15, "naming": 0.40, "describing": 0.15, "fact": 0.20},
    )  # fmt: skip
