"""What a defence table would cost, before anything is spent: a line a system, in seconds of this machine.

Every system answers the test requests; a detector scores them once more before that; a defence learns from the
training part; and with ``inside`` each system is read once.  How many answers a request takes is known for each method
(:data:`ANSWERS`); the units are timed here and now, as for a sweep (:mod:`.estimate`).  Meant to be right within a
factor of two.
"""

from __future__ import annotations

from typing import Any

import torch

from .config import SweepConfig
from .data.registry import load_dataset
from .defenses.base import Defense, Detector
from .defenses.registry import make_defenses
from .estimate import _seconds, _speed, _tokens
from .evaluate.asking import training_and_test
from .lens import LVLM
from .models.anatomy import resolve
from .models.loading import empty_checkpoint, read_dtype
from .stages.inputs import best_device, in_words_only
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
    data = load_dataset(config.dataset, config.root, config.split, config.subset, **dict(config.columns))  # type: ignore[arg-type]
    empty, owner = empty_checkpoint(config.model, revision=config.revision, trust_remote_code=config.trust_remote_code)
    model = LVLM(empty, owner, system=config.system)
    if not model.takes_images:
        data = in_words_only(data)
    train, test = training_and_test(data, None, limit, train_limit, config.seed)
    tried, tokens = _tokens(model, data)
    pictures = sum(bool(sample.images) for sample in tried) / len(tried)
    named = read_dtype(config.dtype)
    dtype = named if isinstance(named, torch.dtype) else empty.dtype
    device = config.device or best_device()
    speed = _speed(config, resolve(empty), tokens, pictures, len(test), device, dtype)
    systems: list[tuple[str, Defense | None]] = [("none", None)]
    systems += [(defense.name, defense) for defense in make_defenses(defenses, model)]
    work = {
        name: _work(defense, len(train), len(test), max_new_tokens, config.batch_size, inside)
        for name, defense in systems
    }
    spent = {name: round(_seconds(one, speed), 1) for name, one in work.items()}
    harmful = sum(bool(sample.harmful) for sample in test)
    return {
        "model": config.model, "dataset": config.dataset, "device": device, "systems": len(systems),
        "requests": len(test), "harmful": harmful, "training_samples": len(train),
        "tokens_a_sample": round(tokens, 1), "forwards": round(sum(one.rows for one in work.values())),
        "decoding_steps": round(sum(one.steps for one in work.values())),
        "verdicts": harmful * len(systems) if judged else 0,
        "seconds_by_stage": {"loading": round(speed.load, 1), **spent},
        "seconds": round(speed.load + sum(spent.values()), 1),
    }  # fmt: skip


def _work(defense: Defense | None, train: int, test: int, max_new_tokens: int, batch_size: int, inside: bool) -> Work:
    answers = ANSWERS.get(defense.name, 1) if defense is not None else 1
    detects = isinstance(defense, Detector)
    second = 2 if defense is not None and defense.name == "sasa" else 1
    rows = test * answers + (2 * test * second if detects else 0)  # scored for the guard, and for the detection's rates
    rows += train * second if detects or answers > 1 else 0
    rows += test if inside else 0
    return Work(rows=rows, steps=answers * max_new_tokens * batches_of(test, batch_size), wide_fits=int(detects))
