"""What every recipe of a training ends in: train on one part, ask the base and the trained model the other.

The training lies in the recipe's folder, so a stopped run goes on at its last checkpoint.  Under a limit it has few
steps, and the result says how many: a limited run shows that everything works, not what the training is worth.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data import Dataset, Sample
from ..defenses.registry import trained_defense
from ..train.method import Job, Method, Settings
from .context import Context, Material
from .cost import ANSWER_TOKENS, TEXT_TOKENS, Pass
from .defended import UNDEFENDED, asked_part, attack_outcome
from .recipe import Outcome, Recipe

STEPS = 300


def steps_of(limit: int | None) -> int:
    """Optimiser steps of a run: :data:`STEPS`, under a limit one for every four items."""
    return STEPS if limit is None else max(2, min(STEPS, limit // 4))


def train_parts(context: Context, material: Material, own: str) -> tuple[list[Sample], list[Sample]]:
    """What is trained on and what is asked: the paper's own training set and the others, else the set's parts."""
    known = [sample for sample in material.data if sample.harmful is not None]
    ours = [sample for sample in material.data if sample.dataset == own and sample.split == "train"]
    asked = [sample for sample in known if sample not in ours]
    if ours and asked:
        return context.some(ours), context.some(asked)
    return asked_part(context, material)


def trained_measure(make: Callable[[int], Method], own: str) -> Callable[[Context, Material], Outcome]:
    """A recipe's ``measure``: attack success and over-refusal before and after.

    Args:
        make: steps of the run to the method.
        own: name of the paper's training set among the recipe's.
    """

    def measure(context: Context, material: Material) -> Outcome:
        steps = steps_of(context.limit)
        method = make(steps)
        train, test = train_parts(context, material, own)
        if not train or not any(sample.harmful == 1 for sample in test):
            return Outcome([], [], not_measured="the data hold no training part apart from labelled harmful requests")
        with tempfile.TemporaryDirectory() as spare:
            place = Path(spare if context.out is None else context.out) / "adapter"
            settings = Settings(steps=steps, seed=context.seed)
            record = method.train(
                Job(context.model.name, Dataset(train, material.name), settings, place, source=context.model)
            )
            defense = trained_defense(place).fit(context.model, train)
            systems = {UNDEFENDED: (context.model, test), method.name: (defense.guard(context.model), test)}
            kept, answers, notes = context.ask(systems)  # type: ignore[arg-type]
        told = f"trained {record['cost']['steps']} steps on {len(train)} samples, {record['cost']['flops']:.3g} FLOPs"
        claims = {method.name: UNDEFENDED}
        found = attack_outcome([test[i] for i in kept], answers, claims, context.seed, notes=[*notes, told])
        few = f"the training had {steps} of {STEPS} steps, which shows that it runs and not what it is worth"
        return replace(found, cut_short=few if steps < STEPS else "")

    return measure


def training_passes(
    rows: int, epochs: float, asked: int, reply: int = ANSWER_TOKENS, picture: bool = True
) -> list[Pass]:
    """Forward and backward (three forwards' worth) of a published training, and the answers before and after."""
    return [
        Pass("training, forward and backward", rows, 3 * epochs, text_tokens=TEXT_TOKENS + reply, picture=picture),
        Pass("answers, undefended and trained", asked, 2, new_tokens=ANSWER_TOKENS),
    ]


def take_pictures(mini: Dataset) -> Dataset:
    """All items with a picture: their train split is trained on, their test split asked."""
    return mini.filter(lambda sample: bool(sample.images) and sample.split in ("train", "test"))


def approximations(method: type[Method], *more: str) -> Sequence[str]:
    """What the method says of itself, and that words tell refusals."""
    return (*((method.approximation,) if method.approximation else ()), *more, "attack success is told by words")


def trained_recipe(
    method: type[Method],
    own: str,
    cost: Mapping[str, Any],
    make: Callable[[int], Method] | None = None,
    differs: Sequence[str] = (),
    **about: Any,
) -> Recipe:
    """The recipe of a training method.

    Args:
        method: its class; own: name of the paper's training set.
        cost: of the published setting, for :func:`training_passes`.
        make: steps of the run to the method; the method with its defaults where it is left out.
        differs: what is approximated beyond what the method says of itself.
        about: further fields of :class:`~.recipe.Recipe`.
    """
    return Recipe(
        **{
            "published": (),
            "stand_in": "items with a picture: train split trained on, test split asked",
            "take": take_pictures,
            "approximations": tuple(approximations(method, *differs)),
            "measure": trained_measure(make or (lambda steps: method()), own),
            "passes": lambda shape: training_passes(**cost),
            **about,
        }
    )
