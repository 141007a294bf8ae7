"""The table that every defence's recipe ends in: attack success and over-refusal, undefended and defended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..data import Sample
from ..data.groups import groups_of
from ..data.splits import train_and_test
from ..defenses.base import Defense
from ..evaluate.refusal import refusal_rule
from ..evaluate.scorers import score_attacks
from .context import Context, Material
from .cost import ANSWER_TOKENS, TEXT_TOKENS, Pass, published_items
from .recipe import Effect, Outcome, Row, paired_effect, rate_row

UNDEFENDED = "undefended"


def asked_part(context: Context, material: Material) -> tuple[list[Sample], list[Sample]]:
    """Training and test samples: the set's own splits, else halves by group where both classes are there.

    A set of one class without splits is all test, and nothing is left to train on.
    """
    known = [sample for sample in material.data if sample.harmful is not None]
    if len({sample.harmful for sample in known}) == 2:
        train, test = train_and_test(known, context.limit, context.limit, context.seed)
        return train, test
    return [], context.some(known)


def defended(context: Context, material: Material, defenses: Sequence[Defense], claims: Mapping[str, str]) -> Outcome:
    """Ask the bare model and each defence the same requests.

    Args:
        context: of the run.
        material: labelled requests; without harmless ones over-refusal is not measured.
        defenses: unfitted; those that need training get the training part.
        claims: system to the system that it is claimed to have less attack success than.
    """
    trains = any("training data" in defense.needs for defense in defenses)
    train, test = asked_part(context, material)
    if not trains:
        test = context.some([s for s in material.data if s.harmful is not None and s.split != "train"])
    systems = {UNDEFENDED: (context.model, test)}
    guards = {}
    for defense in defenses:
        guards[defense.name] = defense.fit(context.model, train).guard(context.model)
        systems[defense.name] = (guards[defense.name], test)  # type: ignore[assignment]
    kept, answers, notes = context.ask(systems)  # type: ignore[arg-type]
    asked = [test[i] for i in kept]
    return attack_outcome(asked, answers, claims, context.seed, notes=[*notes, *_failures(guards)])


def attack_outcome(
    asked: Sequence[Sample],
    answers: Mapping[str, Sequence[str]],
    claims: Mapping[str, str],
    seed: int,
    notes: Sequence[str] = (),
) -> Outcome:
    """Rates of each system, and the claimed differences on the same harmful requests."""
    rows: list[Row] = []
    for name, given in answers.items():
        table = score_attacks(asked, given)
        rows.append(rate_row(f"attack success, {name}", table["attack success"]))
        rows.append(rate_row(f"complied, {name}", table["complied, unsafe"]))
        if table["over-refusal"].total:
            rows.append(rate_row(f"over-refusal, {name}", table["over-refusal"]))
    rule = refusal_rule("lens")
    harmful = [i for i, sample in enumerate(asked) if sample.harmful == 1]
    names = groups_of([asked[i] for i in harmful])
    effects: list[Effect] = []
    for after, before in claims.items():
        effects.append(
            paired_effect(
                f"attack success, {after} minus {before}",
                [float(not rule(answers[after][i])) for i in harmful],
                [float(not rule(answers[before][i])) for i in harmful],
                names,
                "below",
                seed=seed,
            )
        )
    more = [] if any(s.harmful == 0 for s in asked) else ["no harmless requests: over-refusal was not measured"]
    more.append("attack success is 'not refused', as published; 'complied' leaves deflections and unclear answers out")
    return Outcome(rows, effects, notes=[*notes, *more, "answers of these sets were scored by words (rule lens)"])


def _failures(guards: Mapping[str, object]) -> list[str]:
    counts = {name: dict(getattr(guard, "failures", {})) for name, guard in guards.items()}
    return [f"{name}: {count} x {what}" for name, found in counts.items() for what, count in found.items()]


def defence_passes(name: str, items: int, calls: float, extra_text: int = 0) -> tuple[Pass, ...]:
    """The undefended model once, and a defence that asks ``calls`` times a request."""
    return (
        Pass("undefended answers", items, new_tokens=ANSWER_TOKENS),
        Pass(f"answers under {name}", items, calls, new_tokens=ANSWER_TOKENS, text_tokens=TEXT_TOKENS + extra_text),
    )


def attack_items() -> int:
    """Items of MM-SafetyBench with its SD_TYPO pictures, on which these defences are compared."""
    return published_items("mm_safetybench", "groups")
