"""What a defence table would cost, before anything is spent: a line per system, in seconds of this machine.

Every system answers the test requests; a detector scores them once more before that; a defence learns from the
training part; and with ``inside`` each system is read once.  How many answers a request takes is known for each method
(:data:`ANSWERS`); the units are timed here and now, as for a sweep (:mod:`.estimate`).  Meant to be right within a
factor of two.
"""

from __future__ import annotations

from typing import Any

from .config import SweepConfig
from .defenses.base import Defense, Detector
from .defenses.registry import make_defenses
from .estimate import Opened, seconds_of
from .evaluate.asking import training_and_test
from .stages.work import Work, batches_of

ANSWERS = {"ecso": 4, "sia": 3, "coca": 2, "shiftdc": 2}
"""Answers that a method makes for one request, drafts and captions counted; every other makes one."""


def estimate_evaluation(
    config: SweepConfig,
    defenses: str,
    limit: int | None = None,
    train_limit: int | None = None,
    max_new_tokens: int = 32,
    inside: bool = True,
    judged: bool = False,
) -> dict[str, Any]:
    """Requests, forwards and seconds of ``lvlm-lens evaluate``, system by system, as plain values."""
    opened = Opened.of(config)
    train, test = training_and_test(opened.data, None, limit, train_limit, config.seed)
    speed = opened.speed(config, len(test))
    systems: list[tuple[str, Defense | None]] = [("none", None)]
    systems += [(defense.name, defense) for defense in make_defenses(defenses, opened.model)]
    work = {
        name: evaluation_work(defense, len(train), len(test), max_new_tokens, config.batch_size, inside)
        for name, defense in systems
    }
    spent = {name: round(seconds_of(one, speed), 1) for name, one in work.items()}
    harmful = sum(bool(sample.harmful) for sample in test)
    return {
        "model": config.model, "dataset": config.dataset, "device": opened.device, "systems": len(systems),
        "requests": len(test), "harmful": harmful, "training_samples": len(train),
        "tokens_a_sample": round(opened.tokens, 1), "forwards": round(sum(one.rows for one in work.values())),
        "decoding_steps": round(sum(one.steps for one in work.values())),
        "verdicts": harmful * len(systems) if judged else 0,
        "seconds_by_stage": {"loading": round(speed.load, 1), **spent},
        "seconds": round(speed.load + sum(spent.values()), 1),
    }  # fmt: skip


def evaluation_work(
    defense: Defense | None, train: int, test: int, max_new_tokens: int, batch_size: int, inside: bool
) -> Work:
    """What one system asks of the machine."""
    answers = ANSWERS.get(defense.name, 1) if defense is not None else 1
    detects = isinstance(defense, Detector)
    second = 2 if defense is not None and defense.name == "sasa" else 1
    rows = test * answers + (2 * test * second if detects else 0)  # scored for the guard, and for the detection's rates
    rows += train * second if detects or answers > 1 else 0
    rows += test if inside else 0
    return Work(rows=rows, steps=answers * max_new_tokens * batches_of(test, batch_size), wide_fits=int(detects))
