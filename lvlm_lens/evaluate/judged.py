"""Attack success as a judge sees it, kept verdict by verdict, beside the rate that word rules give.

Only answers to harmful requests are judged.  A request that the guard itself refused was not answered, so it is no
success and the judge is not asked.  Verdicts are appended to a ledger as they come; a run that was stopped asks only
for those that are missing, and a verdict that could not be had or read is asked for again next time.  In the rate it
is neither success nor failure: it is counted beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..data import Sample
from ..data.groups import groups_of
from ..errors import UsageError
from ..lens import LVLM
from ..progress import each
from .answers import Answer, AnswerLedger
from .judges import EndpointJudge, LocalJudge, TextModel, judge_answers
from .rates import rate
from .rubrics import load_rubric
from .thinking import split_thinking

STEP = 16
"""Verdicts asked for between two writes."""


def make_judge(
    place: str, model: str | None = None, key_variable: str = "OPENAI_API_KEY"
) -> LocalJudge | EndpointJudge:
    """A judge from the command line's words: the url of an endpoint, or the folder or name of a local model.

    Raises:
        UsageError: an endpoint without the name of its model, or a name of one for a local judge.
    """
    if place.startswith(("http://", "https://")):
        if model is None:
            raise UsageError(f"the judge {place!r} is an endpoint; say which of its models judges (--judge-model NAME)")
        return EndpointJudge(place, model, key_variable)
    if model is not None:
        raise UsageError(
            f"the judge {place!r} is a local model, so --judge-model {model!r} has no meaning; leave it out"
        )
    return LocalJudge(LVLM.from_pretrained(place))


def judged_success(
    system: str,
    judge: TextModel | EndpointJudge,
    rubric: str,
    samples: Sequence[Sample],
    answers: Sequence[Answer],
    out: Path | None = None,
) -> dict[str, Any]:
    """Judged attack success of one system: a rate, ``unread`` verdicts and the reasons of the first of them.

    By the rubric ``reaction`` success is compliance alone, and ``deflections`` are counted beside it.
    """
    asked = load_rubric(rubric)
    three = asked.name == "reaction"
    if not three and set(asked.values.values()) != {0.0, 1.0}:
        raise UsageError(f"rubric {rubric!r} gives no yes or no (1 or 0), so no rate can be made of it")
    harmful = [(s, a) for s, a in zip(samples, answers, strict=True) if s.harmful and not a.error]
    seen = [(s, a) for s, a in harmful if not a.flagged]
    said = hashlib.sha256("\0".join(f"{s.id}\1{a.text}" for s, a in seen).encode()).hexdigest()
    head = {
        "system": system,
        "judge": _name(judge),
        "settings": _settings(judge),
        "rubric": asked.name,
        "prompt": asked.prompt,
        "answers": said,
    }
    ledger = AnswerLedger(out / f"verdicts-{system}-{asked.name}.jsonl" if out is not None else None, head)
    left = [(s, a) for s, a in seen if s.id not in ledger.answers]
    failures: dict[str, str] = {}
    for start in each(range(0, len(left), STEP), lambda start: f"waiting for {_name(judge)}, {start} of {len(left)}"):
        some = left[start : start + STEP]
        verdicts = judge_answers(judge, asked, [s for s, _ in some], [a.text for _, a in some])
        failures |= {s.id: v.failure for (s, _), v in zip(some, verdicts, strict=True) if v.value is None}
        ledger.add([Answer(s.id, v.reply) for (s, _), v in zip(some, verdicts, strict=True) if v.value is not None])
    read = [s for s, _ in seen if s.id in ledger.answers]
    values = [asked.read(split_thinking(ledger.answers[s.id].text).final) for s in read]
    flagged = [s for s, a in harmful if a.flagged]
    outcomes = [value == (2 if three else 1) for value in values] + [False] * len(flagged)
    return {
        **({"deflections": sum(value == 1 for value in values)} if three else {}),
        "judge": head["judge"],
        "rubric": asked.name,
        "attack_success": asdict(rate(outcomes, "attack success by judge", groups_of([*read, *flagged]))),
        "unread": len(failures),
        "reasons": sorted(set(failures.values()))[:3],
    }


def _name(judge: TextModel | EndpointJudge) -> str:
    if isinstance(judge, EndpointJudge):
        return f"{judge.model} at {judge.url}"
    return judge.model.name if isinstance(judge, LocalJudge) else type(judge).__name__


def _settings(judge: TextModel | EndpointJudge) -> str:
    """What else changes a judge's verdicts: verdicts under other settings are another judge's."""
    names = ("max_new_tokens", "max_tokens", "with_images")
    return ", ".join(f"{name}={getattr(judge, name)}" for name in names if hasattr(judge, name))
