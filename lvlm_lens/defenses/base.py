"""One small interface for every defence.

A :class:`Defense` follows scikit-learn: its constructor only stores, ``fit(model, data)`` validates and learns
(nothing, where no training data is needed), ``guard(model)`` gives a :class:`Guarded` model with the same
``generate(samples)`` as :class:`~lvlm_lens.LVLM` and a measured cost.  A :class:`Detector` scores
prompts before generation; its guard refuses those above the threshold and leaves the others' answers
untouched.  Guards stack: ``guard`` takes a model or a guarded model, and :class:`Stack` does it for a list.

>>> from lvlm_lens.defenses import SafetyPrompt, SASA                               # doctest: +SKIP
>>> guarded = SASA(safety_block=4, fused_block=7).fit(model, data.train).guard(model)   # doctest: +SKIP
>>> guarded.generate(data.test[:4]); guarded.cost.per_query()                       # doctest: +SKIP
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator

from ..activations import Activations, capture
from ..data import Sample
from ..errors import DataError, LensError, UsageError
from ..evaluate.cost import Cost, metered
from ..lens import LVLM

PROMPTS = Path(__file__).parent / "prompts"

NEEDS = ("training data", "unlabelled data", "captions", "pictures", "second model")
"""What a defence can need."""


def prompt_text(name: str, file: str | Path | None = None) -> str:
    """A prompt of this package by name, or the user's own from ``file``.

    Raises:
        UsageError: the file cannot be read or is empty.
    """
    path = Path(file).expanduser() if file is not None else PROMPTS / f"{name}.txt"
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"prompt file {str(path)!r} cannot be read ({error}); give a UTF-8 text file") from error
    if not text:
        raise UsageError(f"prompt file {str(path)!r} is empty")
    return text


def filled(template: str, **parts: str) -> str:
    """``template`` with ``{name}`` replaced; other braces stay, so that prompts may hold any text.

    Raises:
        UsageError: the template lacks one of the places.
    """
    for name in parts:
        if "{" + name + "}" not in template:
            raise UsageError(f"the prompt has no place for {{{name}}}; it begins {template[:60]!r}")
    places = re.compile("|".join(re.escape("{" + name + "}") for name in parts))
    return places.sub(lambda match: parts[match[0][1:-1]], template)  # one pass: what was put in is not searched


class Guarded:
    """A model behind a defence.

    Attributes:
        defense: the defence; lvlm: the model itself, below all guards; inner: the model or guard that answers.
        cost: what all calls of :meth:`generate` cost so far, inner guards included.
    """

    def __init__(self, defense: Defense, inner: LVLM | Guarded) -> None:
        self.defense = defense
        self.inner = inner
        self.lvlm: LVLM = inner.lvlm if isinstance(inner, Guarded) else inner
        self.cost = Cost()
        self.failures: dict[str, int] = {}
        self.flagged: dict[str, bool] = {}
        """Sample id to whether the guard itself refused, for detectors."""

    @property
    def name(self) -> str:
        """Names of the guards, outermost first."""
        rest = f" + {self.inner.name}" if isinstance(self.inner, Guarded) else ""
        return f"{self.defense.name}{rest}"

    def count_failure(self, kind: str) -> None:
        """Count something that went wrong for one sample without losing the sample."""
        self.failures[kind] = self.failures.get(kind, 0) + 1

    def generate(self, samples: Sequence[Sample], max_new_tokens: int = 32, batch_size: int = 32) -> list[str]:
        """One answer a sample, in order."""
        if not len(samples):
            return []
        with metered(self.lvlm, self.cost, len(samples)):
            answers = self.defense.answer(self, list(samples), max_new_tokens, batch_size)
        if len(answers) != len(samples):
            raise DataError(f"{self.name} gave {len(answers)} answers to {len(samples)} samples")
        return answers


class Defense(BaseEstimator):
    """Base of all defences.

    Class attributes:
        name: short name, used on the command line.
        needs: what it needs besides the model, from :data:`NEEDS`.
        approximation: what differs from the published method, or is not known of it; ``""`` where nothing.
        source: where the method is from.
        calls: how many times it asks the model for text, for ``--dry-run``.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    approximation: ClassVar[str] = ""
    source: ClassVar[str] = ""

    def fit(self, model: LVLM, data: Sequence[Sample]) -> Defense:
        """Learn what is to be learnt; defences that need no data only check the model."""
        del data
        self.check_model(model)
        return self

    def check_model(self, model: LVLM) -> None:
        """Raise :class:`UsageError` where this defence cannot work on ``model``."""
        if "pictures" in self.needs and not model.takes_images:
            raise UsageError(f"defence {self.name!r} works on pictures and model {model.name!r} takes text only")

    def guard(self, model: LVLM | Guarded) -> Guarded:
        """A guarded model."""
        self.check_model(model.lvlm if isinstance(model, Guarded) else model)
        return Guarded(self, model)

    def answer(self, guarded: Guarded, samples: list[Sample], max_new_tokens: int, batch_size: int) -> list[str]:
        """Answers of the guarded model; a defence that only rewrites the request overrides :meth:`rewrite`."""
        rewritten = [self.rewrite(sample) for sample in samples]
        return guarded.inner.generate(rewritten, max_new_tokens=max_new_tokens, batch_size=batch_size)

    def rewrite(self, sample: Sample) -> Sample:
        """The request as the model gets it."""
        return sample

    def capture(
        self,
        model: LVLM,
        data: Sequence[Sample],
        sites: Any = "resid_post",
        positions: str = "last",
        **options: Any,
    ) -> Activations:
        """Activations as they are under this defence: the undefended model's for defences that only look.

        Rows keep the original samples (labels, groups), so that a measure of locating runs on them unchanged.
        """
        rewritten = [self.rewrite(sample) for sample in data]
        acts = capture(model, rewritten, sites=sites, positions=positions, **options)
        original = {sample.id: sample for sample in data}
        acts.samples = tuple(original[sample.id] for sample in acts.samples)
        return acts


class Detector(Defense):
    """A defence that scores prompts before generation and refuses above a threshold.

    Subclasses give ``score_prompt`` and set ``threshold_`` in ``fit``.
    """

    threshold_: float

    def score_prompt(self, model: LVLM, samples: Sequence[Sample]) -> np.ndarray:
        """Danger score of each prompt, float64 ``[sample]``; larger is more dangerous."""
        raise LensError(f"{type(self).__name__} gives no score")

    def predict(self, model: LVLM, samples: Sequence[Sample]) -> np.ndarray:
        """True where the guard refuses, ``[sample]``."""
        self.check_fitted()
        return self.score_prompt(model, samples) >= self.threshold_

    def check_fitted(self) -> None:
        """Raise :class:`UsageError` before ``fit``."""
        if not hasattr(self, "threshold_"):
            raise UsageError(f"defence {self.name!r} is not fitted yet; call fit(model, data) first")

    def guard(self, model: LVLM | Guarded) -> Guarded:
        """A guarded model; raises :class:`UsageError` before ``fit``."""
        self.check_fitted()
        return super().guard(model)

    def answer(self, guarded: Guarded, samples: list[Sample], max_new_tokens: int, batch_size: int) -> list[str]:
        """A fixed refusal where the score reaches the threshold, else the inner model's own answer."""
        refusal = prompt_text("refusal", getattr(self, "refusal_file", None))
        refused = self.predict(guarded.lvlm, samples)
        guarded.flagged.update({s.id: bool(r) for s, r in zip(samples, refused, strict=True)})
        safe = [sample for sample, flag in zip(samples, refused, strict=True) if not flag]
        made = guarded.inner.generate(safe, max_new_tokens=max_new_tokens, batch_size=batch_size) if safe else []
        given = iter(made)
        return [refusal if flag else next(given) for flag in refused]


@dataclass(eq=False, repr=False)
class Stack(Defense):
    """Several defences at once; the first is the outermost (a detector before a prompt, say)."""

    name = "stack"

    defenses: Sequence[Defense] = ()

    def fit(self, model: LVLM, data: Sequence[Sample]) -> Stack:
        """Fit every one on the same data."""
        if not self.defenses:
            raise UsageError("an empty stack defends nothing; give at least one defence")
        for defense in self.defenses:
            defense.fit(model, data)
        return self

    def rewrite(self, sample: Sample) -> Sample:
        """The request as it reaches the model through all members, the outermost first."""
        for defense in self.defenses:
            sample = defense.rewrite(sample)
        return sample

    def capture(
        self,
        model: LVLM,
        data: Sequence[Sample],
        sites: Any = "resid_post",
        positions: str = "last",
        **options: Any,
    ) -> Activations:
        """Activations of the request that all members have rewritten.

        Raises:
            UsageError: a member changes the forward itself, which is captured only by that member alone.
        """
        own = [defense.name for defense in self.defenses if type(defense).capture is not Defense.capture]
        if own:
            raise UsageError(f"a stack with {', '.join(own)} cannot be captured; capture that defence by itself")
        return super().capture(model, data, sites, positions, **options)

    def guard(self, model: LVLM | Guarded) -> Guarded:
        """Guards around guards."""
        guarded: LVLM | Guarded = model
        for defense in reversed(self.defenses):
            guarded = defense.guard(guarded)
        if not isinstance(guarded, Guarded):
            raise UsageError("an empty stack defends nothing; give at least one defence")
        return guarded


def threshold_at(harmless_scores: np.ndarray, fpr: float) -> float:
    """Smallest threshold that at most a share ``fpr`` of the harmless scores reaches.

    With fewer than ``1 / fpr`` harmless scores it lies just above the highest of them.
    """
    if not 0.0 <= fpr < 1.0:
        raise UsageError(f"false-positive rate is {fpr}; give a share from 0 to below 1")
    scores = np.sort(np.asarray(harmless_scores, dtype=np.float64))[::-1]
    if not len(scores):
        raise DataError("no harmless sample to set the threshold on")
    allowed = int(np.floor(fpr * len(scores) + 1e-9))
    return float(np.nextafter(scores[allowed], np.inf)) if allowed < len(scores) else float("-inf")


def labelled(data: Sequence[Sample], least: int = 1) -> tuple[list[Sample], np.ndarray]:
    """Samples with a known joint label and their labels (1 harmful), both classes there.

    Raises:
        DataError: empty, one class only, or fewer than ``least`` of a class.
    """
    known = [sample for sample in data if sample.harmful is not None]
    labels = np.array([int(sample.harmful or 0) for sample in known], dtype=np.int64)
    harmful, harmless = int(labels.sum()), int((1 - labels).sum())
    if harmful < least or harmless < least:
        raise DataError(
            f"the training set holds {harmless} harmless and {harmful} harmful labelled samples of {len(data)}; "
            f"at least {least} of each are needed"
        )
    return known, labels
