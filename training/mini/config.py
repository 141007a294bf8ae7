"""Every number of the recipe in one place."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Weights:
    """How much a token of a kind weighs in the next-token loss."""

    prompt: float = 0.1
    reply: float = 1.0
    decision: float = 8.0
    name: float = 2.0


@dataclass(frozen=True)
class TowerStage:
    """Stage 0, the vision tower as a classifier of rendered things and words."""

    cycles: tuple[tuple[int, float], ...] = ((2000, 1e-3), (900, 8e-4), (500, 8e-4), (1300, 8e-4))
    """Steps and peak rate of each cycle."""
    batch: int = 64
    decay: float = 0.05
    card_shares: tuple[float, ...] = (0.25, 0.25, 0.25, 0.12)
    """Share of written words in each cycle, on cards and on banners beside things."""
    banner_shares: tuple[float, ...] = (0.08, 0.08, 0.08, 0.06)
    bfloat16: bool = True
    log_every: int = 50


def _text_mix() -> dict[str, float]:
    return {
        "joint": 0.40,
        "abstract": 0.18,
        "use": 0.03,
        "intent": 0.05,
        "naming": 0.03,
        "describing": 0.08,
        "kind": 0.02,
        "fact": 0.18,
        "rule": 0.03,
        "homonym": 0.02,
    }


def _fact_mix() -> dict[str, float]:
    return _text_mix() | {"joint": 0.36, "abstract": 0.20, "fact": 0.22, "describing": 0.06}


@dataclass(frozen=True)
class LanguageStage:
    """Stage 1, language and refusal from text alone."""

    cycles: tuple[tuple[int, float], ...] = ((2400, 1.5e-3), (700, 1e-3))
    """Steps and peak rate of each cycle."""
    cycles_before_naming: int = 1
    """The other cycles may run beside the naming stage, which does not touch the decoder."""
    mixes: tuple[dict[str, float], ...] = field(default_factory=lambda: (_text_mix(), _fact_mix()))
    """Shares of the kinds of example in each cycle."""
    batch: int = 64
    decay: float = 0.1
    harmful_share: float = 0.5
    bfloat16: bool = True
    log_every: int = 100


def _naming_mix() -> dict[str, float]:
    return {"naming": 0.6, "describing": 0.25, "kind": 0.05, "fact": 0.1}


@dataclass(frozen=True)
class NamingStage:
    """Stage 2, the projector alone names what is seen."""

    cycles: tuple[tuple[int, float], ...] = ((700, 3e-3),)
    """Steps and peak rate of each cycle."""
    batch: int = 32
    decay: float = 0.0
    mix: dict[str, float] = field(default_factory=_naming_mix)
    bfloat16: bool = True
    log_every: int = 100


def _tuning_mix() -> dict[str, float]:
    return {
        "joint": 0.50,
        "use": 0.05,
        "intent": 0.04,
        "naming": 0.18,
        "describing": 0.06,
        "kind": 0.02,
        "fact": 0.15,
    }


@dataclass(frozen=True)
class TuningStage:
    """One cycle of stage 3, visual instruction tuning on mostly harmless requests with text replay."""

    steps: int
    rate: float
    pictures: int = 8
    """Pictures a step."""
    questions: int = 10
    """Chats about each picture."""
    replay: int = 12
    """Text-only chats a step."""
    replay_weight: float = 0.4
    decay: float = 0.05
    harmful_share: float = 0.3
    mix: dict[str, float] = field(default_factory=_tuning_mix)
    replay_mix: dict[str, float] = field(default_factory=_text_mix)
    bfloat16: bool = True
    log_every: int = 100


@dataclass(frozen=True)
class Recipe:
    """The whole recipe."""

    seed: int = 0
    vocabulary: int = 1536
    tokenizer_sentences: int = 20000
    pictures_per_thing: int = 100
    cards_per_thing: int = 12
    weights: Weights = field(default_factory=Weights)
    tower: TowerStage = field(default_factory=TowerStage)
    language: LanguageStage = field(default_factory=LanguageStage)
    naming: NamingStage = field(default_factory=NamingStage)
    tuning: tuple[TuningStage, ...] = (TuningStage(1500, 8e-4),)
