"""What a recipe is, and how a verdict comes about.

A :class:`Recipe` is a paper as a value: its claim in one sentence, the published setting and numbers with their
source, what is approximated here and what is not known to us, the data sets it wants, and one function that
measures.  :meth:`Recipe.run` calls that function and judges twice, apart:

* the **claim**, a direction: every :class:`Effect` has an interval and a side on which the paper puts it.
  *reproduced* where every interval lies wholly on that side; *not reproduced* where one does not; *not comparable*
  where an effect could not be measured (no judge, no pictures, fewer than six independent groups: with five even
  equal signs everywhere are no evidence at 5 %), or a training had fewer steps than its recipe asks for.
* the **numbers**: compared only on the model they were published for, on the published files, whole, scored as
  published; *reproduced* where each published value lies in our interval.  Everywhere else *not comparable*, with
  the reason.

Published numbers are written down once, in the recipe's file, each with its source; what could not be found is
listed under ``unknown``, and never filled in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..data import Dataset
from ..evaluate.rates import Rate
from ..stats.groups import paired_test

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .context import Context, Material
    from .cost import Pass, Shape

State = Literal["reproduced", "not reproduced", "not comparable"]
CLAIM_STATES: tuple[State, ...] = ("reproduced", "not reproduced", "not comparable")
LEAST_GROUPS = 6
"""Fewer independent groups cannot reach 5 % in a two-sided sign test, whatever they show (2 / 2^5 > 0.05)."""


@dataclass(frozen=True)
class Published:
    """One published number.

    Attributes:
        what: the quantity, spelt as the measured :class:`Row` it belongs to.
        model: as the source names it.
        value: the number; unit: ``%``, ``AUROC``, ``block`` ...
        source: where it was read.
    """

    what: str
    model: str
    value: float
    unit: str
    source: str


def published_table(table: Mapping[str, Sequence[float]], names: Sequence[str], source: str) -> tuple[Published, ...]:
    """A printed table of percentages: for each model its values, in the order of ``names``."""
    return tuple(
        Published(name, model, value, "%", source)
        for model, values in table.items()
        for name, value in zip(names, values, strict=True)
    )


@dataclass(frozen=True)
class Row:
    """One measured quantity with its 95 % interval over ``n`` items; NaN bounds where there is no interval."""

    what: str
    value: float
    low: float
    high: float
    unit: str
    n: int


@dataclass(frozen=True)
class Effect:
    """One part of a claim: a difference, its 95 % interval over ``groups`` groups, and the side claimed.

    ``expect`` is ``above`` or ``below`` ``bound``.
    """

    what: str
    value: float
    low: float
    high: float
    groups: int
    unit: str
    expect: Literal["above", "below"] = "above"
    bound: float = 0.0

    @property
    def measured(self) -> bool:
        """Whether there is an interval from enough groups."""
        return self.groups >= LEAST_GROUPS and all(map(math.isfinite, (self.value, self.low, self.high)))

    @property
    def holds(self) -> bool:
        """Whether the whole interval lies on the claimed side."""
        return self.measured and (self.low > self.bound if self.expect == "above" else self.high < self.bound)

    def __str__(self) -> str:
        return f"{self.what} {self.value:+.3g} [{self.low:+.3g}, {self.high:+.3g}] {self.unit}, {self.groups} groups"


@dataclass(frozen=True)
class Verdict:
    """``state`` and the sentence that says why."""

    state: State
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What a recipe's measuring gives.

    Attributes:
        rows: measured quantities, in the order of the table.
        effects: the parts of the claim; the claim holds where all of them hold.
        figures: by file name.
        notes: what a reader should know of this run.
        caveats: what weakens the verdict on the claim; they stand in its reason.
        not_measured: why the claim could not be measured; empty where it was.
        cut_short: how far a training of the run was cut; its numbers are then told and decide nothing.
        scored_as_published: whether answers were scored by the published kind of judge.
    """

    rows: Sequence[Row]
    effects: Sequence[Effect]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    notes: Sequence[str] = ()
    caveats: Sequence[str] = ()
    not_measured: str = ""
    cut_short: str = ""
    scored_as_published: bool = True


@dataclass(frozen=True)
class SetUse:
    """A registered data set that a recipe wants, or a part of it."""

    name: str
    subset: str | None = None


@dataclass(frozen=True)
class Recipe:
    """A paper as a value; see the module's first lines.

    Attributes:
        name: the word on the command line; title; source: the paper's identifier.
        claim: one sentence, a direction that can be measured.
        setting: the published setting as known, by keyword.
        published: published numbers.
        approximations: what differs here; unknown: what is not known to us.
        sets: published data sets it is measured on (all that are there).
        stand_in: what of the embedded set stands in for them, in words; take: that part.
        measure: ``(context, material) -> Outcome``.
        passes: what the published setting would run on a model of a given shape, for ``--dry-run``.
        needs_pictures: whether it can be run on a text-only model.
        needs_words: whether it compares pictures with the same requests in words alone (``text_only``).
    """

    name: str
    title: str
    source: str
    claim: str
    setting: Mapping[str, str]
    published: tuple[Published, ...]
    approximations: tuple[str, ...]
    unknown: tuple[str, ...]
    sets: tuple[SetUse, ...]
    stand_in: str
    take: Callable[[Dataset], Dataset]
    measure: Callable[[Context, Material], Outcome]
    passes: Callable[[Shape], Sequence[Pass]]
    needs_pictures: bool = True

    def run(self, context: Context) -> RecipeResult:
        """Load the data, measure, judge."""
        material = context.load(self)
        outcome = self.measure(context, material)
        return RecipeResult(
            recipe=self,
            model=context.model.name,
            material=material,
            outcome=outcome,
            claim=claim_verdict(outcome),
            numbers=self.numbers_verdict(context.model.name, material, outcome),
        )

    def cost(self, tflops: float = 100.0) -> dict[str, Any]:
        """What the published setting would cost on LLaVA-1.5-7B at ``tflops`` sustained TFLOP/s."""
        from .cost import cost_of

        return cost_of(self.name, self.passes, tflops)

    def numbers_verdict(self, model: str, material: Material, outcome: Outcome) -> Verdict:
        """Compare published numbers with ours where that is fair; else say why it is not."""
        if not self.published:
            return Verdict("not comparable", "no published number is known to us")
        measured = {row.what: row for row in outcome.rows}
        mine = [p for p in self.published if same_model(p.model, model)]
        reasons = []
        if not mine:
            reasons.append(
                f"published for {', '.join(dict.fromkeys(p.model for p in self.published))}, not for {model}"
            )
        if material.stand_in:
            reasons.append(f"the data are a stand-in ({self.stand_in}), not the published files")
        elif not material.own:
            reasons.append(f"measured on {material.name}, not on the paper's data")
        elif not material.whole:
            reasons.append("a limit left items out")
        if not outcome.scored_as_published:
            reasons.append("answers were scored by words; the paper's scoring needs a judge (--judge)")
        pairs = [(p, measured[p.what]) for p in mine if p.what in measured]
        if mine and not pairs:
            reasons.append("none of the published quantities was measured")
        if reasons:
            return Verdict("not comparable", "; ".join(reasons))
        inside = [row.low <= p.value <= row.high for p, row in pairs]
        said = "; ".join(
            f"{p.what}: published {p.value:g}, here {row.value:.3g} [{row.low:.3g}, {row.high:.3g}] {row.unit}"
            for p, row in pairs
        )
        return Verdict("reproduced" if all(inside) else "not reproduced", said)


@dataclass(frozen=True)
class RecipeResult:
    """A recipe's run: rows, effects and the two verdicts."""

    recipe: Recipe
    model: str
    material: Material
    outcome: Outcome
    claim: Verdict
    numbers: Verdict

    def table(self) -> list[dict[str, Any]]:
        """Measured and published values under one another, by quantity: the comparison table."""
        here = f"{self.model} on {self.material.name}" + (" (stand-in)" if self.material.stand_in else "")
        rows: list[dict[str, Any]] = []
        order = dict.fromkeys([row.what for row in self.outcome.rows] + [p.what for p in self.recipe.published])
        for what in order:
            rows += [
                {
                    "quantity": what,
                    "where": here,
                    "value": _plain(row.value),
                    "low": _plain(row.low),
                    "high": _plain(row.high),
                    "unit": row.unit,
                    "n": row.n,
                    "source": "this run",
                }
                for row in self.outcome.rows
                if row.what == what
            ]
            rows += [
                {
                    "quantity": what,
                    "where": p.model,
                    "value": p.value,
                    "low": None,
                    "high": None,
                    "unit": p.unit,
                    "n": None,
                    "source": p.source,
                }
                for p in self.recipe.published
                if p.what == what
            ]
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        recipe = self.recipe
        return {
            "name": recipe.name,
            "title": recipe.title,
            "source": recipe.source,
            "claim": recipe.claim,
            "setting": dict(recipe.setting),
            "model": self.model,
            "data": self.material.to_dict(),
            "verdict": {
                "claim": {"state": self.claim.state, "reason": self.claim.reason},
                "numbers": {"state": self.numbers.state, "reason": self.numbers.reason},
            },
            "effects": [
                {
                    "what": effect.what,
                    "value": _plain(effect.value),
                    "low": _plain(effect.low),
                    "high": _plain(effect.high),
                    "groups": effect.groups,
                    "unit": effect.unit,
                    "expect": f"{effect.expect} {effect.bound:g}",
                    "holds": effect.holds,
                }
                for effect in self.outcome.effects
            ],
            "table": self.table(),
            "approximations": list(recipe.approximations),
            "unknown": list(recipe.unknown),
            "cut_short": self.outcome.cut_short,
            "notes": [*self.material.notes, *self.outcome.notes],
        }


def claim_verdict(outcome: Outcome) -> Verdict:
    """The state of a claim from its effects, with every caveat in its reason; see the module's first lines."""
    found = _from_effects(outcome)
    reason = "; but ".join([found.reason, *outcome.caveats])
    if outcome.cut_short:
        return Verdict("not comparable", f"{outcome.cut_short}: {reason}")
    return Verdict(found.state, reason)


def _from_effects(outcome: Outcome) -> Verdict:
    if outcome.not_measured or not outcome.effects:
        return Verdict("not comparable", outcome.not_measured or "no effect was measured")
    thin = [effect for effect in outcome.effects if not effect.measured]
    if thin:
        few = [effect for effect in thin if effect.groups < LEAST_GROUPS]
        why = f"fewer than {LEAST_GROUPS} independent groups" if few else "no interval"
        return Verdict("not comparable", f"{why}: " + "; ".join(map(str, thin)))
    said = "; ".join(f"{effect}, claimed {effect.expect} {effect.bound:g}" for effect in outcome.effects)
    missing = [effect for effect in outcome.effects if not effect.holds]
    if not missing:
        return Verdict("reproduced", said)
    words = {True: "open, the interval holds both sides", False: "on the other side"}
    told = [f"{effect.what}: {words[effect.low <= effect.bound <= effect.high]}" for effect in missing]
    return Verdict("not reproduced", f"{said} ({'; '.join(told)})")


def paired_effect(
    what: str,
    after: Sequence[float],
    before: Sequence[float],
    groups: Sequence[str] | np.ndarray,
    expect: Literal["above", "below"] = "above",
    scale: float = 100.0,
    unit: str = "points",
    seed: int = 0,
) -> Effect:
    """Mean of ``after - before`` on the same items, times ``scale``, with its interval over groups."""
    if not len(after):
        return Effect(what, math.nan, math.nan, math.nan, 0, unit, expect)
    found = paired_test(after, before, groups, seed=seed)
    return Effect(
        what, scale * found.value, scale * found.low, scale * found.high, len(set(groups)), unit, expect
    )  # fmt: skip


def rate_row(what: str, found: Rate) -> Row:
    """A rate as a row in per cent."""
    return Row(what, 100 * found.value, 100 * found.low, 100 * found.high, "%", found.total)


def same_model(published: str, name: str) -> bool:
    """Whether ``name`` (of a checkpoint) is the model a source calls ``published``.

    Words and version numbers of the published name must follow one another in the checkpoint's: ``LLaVA-1.5-7B`` is
    ``llava-1.5-7b-hf``, and ``Qwen-VL`` is not ``Qwen2.5-VL-7B``.
    """
    wanted, have = _tokens(published), _tokens(name)
    return bool(wanted) and any(have[at : at + len(wanted)] == wanted for at in range(len(have) - len(wanted) + 1))


def _tokens(name: str) -> list[str]:
    found = re.findall(r"\d+(?:\.\d+)?b(?![a-z])|\d+(?:\.\d+)?[a-z]?(?![a-z0-9])|\d+(?:\.\d+)?|[a-z]+", name.lower())
    return [token for token in found if token != "v"]


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
