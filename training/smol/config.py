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
    return {"naming": 0.5, "describing": 0.15, "kind": 0.02, "use": 0.12, "intent": 0.21}


def _replay_mix() -> dict[str, float]:
    return {"abstract": 0.5, "fact": 0.25, "describing": 0.15, "rule": 0.1}


@dataclass(frozen=True)
class PictureStage:
    """``smol``: pictures of ``mini``'s world and text replay, at a constant rate."""

    steps: int = 200
    rate: float = 7e-4
    projector_rate: float = 3e-4
    warm: int = 30
    """Steps over which the rate rises."""
    falling: bool = False
    """Whether it falls to nothing afterwards, or stays."""
    rank: int = 16
    targets: tuple[str, ...] = tuple(LINEAR)
    pictures: int = 6
    """Pictures a step."""
    opposites: int = 2
    """Requests that only the one and requests that only the other of two things cannot bear, asked about both."""
    harmless: int = 1
    """Requests about each that it can bear."""
    facts: int = 1
    """Questions about a property of each."""
    others: int = 1
    """Questions of ``mix`` about each."""
    whole_share: float = 0.25
    """Share of the decisions whose reply is trained to its end, and not its first token alone."""
    harmful_share: float = 0.4
    """Of the questions of ``mix`` that decide."""
    mix: dict[str, float] = field(default_factory=_mix)
    knowledge_share: float = 0.1
    """Share of questions about a thing that the base itself answered in words."""
    answer_tokens: int = 16
    contrasts: int = 3
    """Chats of ``smol-text``'s contrasts in a step's row of text."""
    harmful_contrasts: int = 1
    told: int = 1
    """Chats of ``replay_mix`` in that row, beside four of opposites told in words."""
    replay_mix: dict[str, float] = field(default_factory=_replay_mix)
    replay_weight: float = 0.7
    thin: int = 12
    """Patches that stand for all 64 of a picture in ``thin_share`` of the steps."""
    thin_share: float = 0.7
    ingredients: float = 3.0
    """Weight of the loss of ``ingredients.py``."""
    heads_rate: float = 3e-3
    held_texts: int = 60
    """Held-out requests in words that a validation looks at."""
    log_every: int = 50
    """Steps between two validations, each of which saves the weights."""

    def share_of_rate(self, step: int) -> float:
        """What part of the rate a step takes."""
        rising = min(1.0, (step + 1) / self.warm)
        return rising * (1 - step / self.steps) if self.falling else rising


def settling_stage() -> PictureStage:
    """``smol``, last: the rate falls to nothing, most requests are harmless, as in use, and names come."""
    return PictureStage(
        steps=100, rate=5e-4, projector_rate=2e-4, warm=5, falling=True, opposites=1, harmless=2, facts=0, others=3,
        mix={"naming": 0.75, "describing": 0.03, "use": 0.08, "intent": 0.14}, knowledge_share=0.05,
        harmful_share=0.3, ingredients=1.0, thin_share=0.3, log_every=50,
    )  # fmt: skip
