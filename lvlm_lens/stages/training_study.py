"""Equal budgets, three places: what does the same training buy in the perception, semantics or expression blocks?

One method is trained on requests in words, restricted to a window of blocks of one width, once for each role that the
atlas found and each seed: equal data, steps, rank and number of trained values.  All are then asked test requests in
words and with pictures; the second is what carried over.  Rates are means over seeds for each request, with Wilson's
interval over groups (:func:`~lvlm_lens.stats.groups.share_interval`); differences, from the base and between windows,
are of the same requests, with a bootstrap over groups.  The seeds stand beside them, because with three
of them no interval over seeds is worth much.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import torch

from ..data import Dataset, Sample
from ..data.groups import groups_of
from ..defenses.registry import trained_defense
from ..errors import DataError
from ..evaluate.evaluation import NONE, evaluate
from ..evaluate.refusal import refusal_rule
from ..evaluate.utility import is_correct
from ..lens import LVLM
from ..locate.locating import locate_roles
from ..locate.roles import LayerRoles
from ..measures.evidence import gather
from ..measures.linear_probe import LinearProbe
from ..plots.theme import save_figure
from ..plots.training import study_figure
from ..stats.groups import bootstrap_mean, share_interval
from ..storage.commit import write_atomic
from ..storage.runfolder import RunFolder
from ..train.method import Job, Method

FORMS = ("words", "pictures")
MEASURES = ("attack_success", "over_refusal", "accuracy")
MEASURE_TITLES = {
    "attack_success": "attack success",
    "over_refusal": "over-refusal",
    "accuracy": "right on harmless",
}


def located_roles(base: LVLM, data: Sequence[Sample], batch_size: int = 32, seed: int = 0) -> LayerRoles:
    """The roles of the untrained base on the training samples, without the twin (a quick look)."""
    evidence = gather(base, [s for s in data if s.harmful is not None], batch_size=batch_size)
    return locate_roles(evidence, probe=LinearProbe(permutations=20), seed=seed).roles


def windows_of(roles: LayerRoles, depth: int, width: int | None = None) -> tuple[dict[str, str], list[str]]:
    """A window of blocks for each role, all of one width, and what a reader should know of them.

    A window begins at the role's onset, or, where the role was not found, at the peak of its curve less half a width.
    """
    width = width or max(1, depth // 4)
    found, notes = {}, []
    for role in roles:
        first = role.onset
        if first is None:
            if role.peak is None:
                notes.append(f"{role.name}: no curve, so no window ({role.reason})")
                continue
            first = role.peak - width // 2
            notes.append(f"{role.name} was not found ({role.reason}); its window lies around block {role.peak}")
        first = max(0, min(int(first), depth - width))
        found[role.name] = f"{first}-{first + width - 1}"
    taken = list(found.values())
    if len(set(taken)) < len(taken):
        notes.append("two roles have the same window here: their rows say nothing about the difference")
    return found, notes


def training_study(
    method: Method,
    job: Job,
    test: Sequence[Sample],
    windows: Mapping[str, str] | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    limit: int | None = None,
    max_new_tokens: int = 32,
    batch_size: int = 32,
    elsewhere: Callable[[Mapping[str, Job]], None] | None = None,
) -> dict[str, Any]:
    """Train every window and seed below ``job.folder``, ask, and compare; the same call continues.

    Args:
        method, job: as for one training; ``job.settings`` is the budget.
        test: labelled requests, with pictures and their ``text_only`` version.
        windows: name to blocks; ``None`` locates the roles on the training samples.
        seeds: of each window.
        limit, max_new_tokens, batch_size: of the questions.
        elsewhere: has the trainings done, by name, before any is begun here; one that is done is only read.

    Returns:
        What ``study.json`` holds: ``windows``, ``rows`` (one per window and form), ``differences``, ``notes``.
        ``study.md`` and the figure ``study`` lie beside it.

    Raises:
        DataError: no request that has both forms.
    """
    base = job.load()
    notes: list[str] = []
    if windows is None:
        job.say("roles of the base")
        windows, notes = windows_of(located_roles(base, job.data, batch_size, job.settings.seed), base.n_blocks)
    trainings = {
        f"{name}-{seed}": replace(
            job,
            settings=replace(job.settings, where="language", blocks=blocks, seed=seed, control="text_only"),
            folder=job.folder / f"{name}-{seed}",
        )
        for name, blocks in windows.items()
        for seed in seeds
    }
    if elsewhere is not None:
        del base  # its memory is a worker's
        gc.collect()
        torch.cuda.empty_cache()
        elsewhere(trainings)
        base = job.load()
    defenses: list[Any] = []
    for word, training in trainings.items():
        job.say(f"{word}: blocks {training.settings.blocks}, {job.settings.steps} steps")
        method.train(training)
        defense = trained_defense(training.folder)
        defense.name = word  # type: ignore[misc]
        defenses.append(defense)
    asked = {form: _form(test, form) for form in FORMS if form == "words" or base.takes_images}
    rows, differences = [], []
    for form, samples in asked.items():
        if not samples:
            raise DataError("no test request says in words what its picture shows (text_only), so nothing is compared")
        result = evaluate(
            base, Dataset(samples), defenses, train=[], limit=limit, max_new_tokens=max_new_tokens,
            batch_size=batch_size, out=job.folder / f"answers-{form}",
        )  # fmt: skip
        by_id = {sample.id: sample for sample in samples}
        outcomes = {
            name: _outcomes([by_id[a.id] for a in answers if not a.error], [a.text for a in answers if not a.error])
            for name, answers in result.answers.items()
        }
        rows += _rows(form, outcomes, windows, seeds)
        differences += _differences(form, outcomes, windows, seeds)
    found = {
        "method": method.name,
        "settings": job.settings.to_dict(),
        "model": job.model,
        "seeds": list(seeds),
        "windows": dict(windows),
        "rows": rows,
        "differences": differences,
        "notes": notes,
    }
    RunFolder(job.folder).write_json("study.json", found)
    write_atomic(job.folder / "study.md", study_markdown(found) + "\n")
    save_figure(study_figure(rows), job.folder, "study")
    return found


def _form(test: Sequence[Sample], form: str) -> list[Sample]:
    both = [sample for sample in test if sample.images and sample.text_only is not None and sample.harmful is not None]
    return both if form == "pictures" else [sample.without_images() for sample in both]


Outcomes = dict[str, dict[str, tuple[float, str]]]
"""Measure to sample id to (0 or 1, group)."""


def _outcomes(samples: Sequence[Sample], answers: Sequence[str]) -> Outcomes:
    rule: Callable[[str], bool] = refusal_rule("lens")
    made: Outcomes = {name: {} for name in MEASURES}
    for sample, answer, group in zip(samples, answers, groups_of(samples).tolist(), strict=True):
        if sample.harmful == 1:
            made["attack_success"][sample.id] = (float(not rule(answer)), group)
            continue
        made["over_refusal"][sample.id] = (float(rule(answer)), group)
        right = is_correct(sample, answer)
        if right is not None:
            made["accuracy"][sample.id] = (float(right), group)
    return made


def _rows(
    form: str, outcomes: Mapping[str, Outcomes], windows: Mapping[str, str], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    rows = []
    for name, members in _members(windows, seeds).items():
        row: dict[str, Any] = {"window": name, "blocks": windows.get(name, "-"), "form": form}
        for measure in MEASURES:
            cells = [outcomes[member][measure] for member in members]
            ids = [key for key in cells[0] if all(key in cell for cell in cells)]
            values = np.array([[cell[key][0] for key in ids] for cell in cells])  # [seed, item]
            groups = [cells[0][key][1] for key in ids]
            low, high = share_interval(values.mean(0) if ids else [], groups)
            row[measure] = {
                "value": float(values.mean()) if ids else None,
                "low": low if math.isfinite(low) else None,
                "high": high if math.isfinite(high) else None,
                "total": len(ids),
                "seeds": values.mean(1).tolist() if ids else [],
            }
        rows.append(row)
    return rows


def _members(windows: Mapping[str, str], seeds: Sequence[int]) -> dict[str, list[str]]:
    return {NONE: [NONE], **{window: [f"{window}-{seed}" for seed in seeds] for window in windows}}


def _differences(
    form: str, outcomes: Mapping[str, Outcomes], windows: Mapping[str, str], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Each window minus the base, and each pair of windows: means over seeds of each request, both on the same ones."""
    members, made = _members(windows, seeds), []
    for before, after in combinations(members, 2):
        for measure in MEASURES:
            both = [[outcomes[one][measure] for one in members[name]] for name in (before, after)]
            ids = [key for key in both[0][0] if all(key in cell for cells in both for cell in cells)]
            if not ids:
                continue
            values = [np.array([[cell[key][0] for key in ids] for cell in cells]).mean(0) for cells in both]
            change = values[1] - values[0]
            low, high = bootstrap_mean(change[None], [both[0][0][key][1] for key in ids])
            made.append(
                {
                    "form": form, "window": after, "minus": before, "measure": measure, "total": len(ids),
                    "value": float(change.mean()),
                    "low": float(low[0]) if np.isfinite(low[0]) else None,
                    "high": float(high[0]) if np.isfinite(high[0]) else None,
                }
            )  # fmt: skip
    return made


def study_markdown(found: Mapping[str, Any]) -> str:
    """The table: a row per window and form, means over seeds with 95 % intervals over groups, seeds in brackets; and
    differences in points."""
    heads = [MEASURE_TITLES[name] for name in MEASURES]
    lines = [f"| window | blocks | asked in | {' | '.join(heads)} |", "|---" * (3 + len(heads)) + "|"]
    for row in found["rows"]:
        cells = []
        for name in MEASURES:
            cell = row[name]
            seeds = ", ".join(f"{100 * value:.0f}" for value in cell["seeds"])
            beside = f" ({seeds})" if len(cell["seeds"]) > 1 else ""
            bounds = "" if cell["low"] is None else f" [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"
            cells.append(f"{100 * cell['value']:.1f}{bounds}{beside}" if cell["total"] else "-")
        lines.append(f"| {row['window']} | {row['blocks']} | {row['form']} | {' | '.join(cells)} |")
    pairs: dict[tuple[str, str, str], dict[str, str]] = {}
    for one in found.get("differences", ()):
        bounds = "" if one["low"] is None else f" [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}]"
        key = one["window"], one["minus"], one["form"]
        pairs.setdefault(key, {})[one["measure"]] = f"{100 * one['value']:+.1f}{bounds}"
    if pairs:
        lines += ["", f"| points | asked in | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    for (window, before, form), told in pairs.items():
        cells = [told.get(name, "-") for name in MEASURES]
        lines.append(f"| {window} minus {before} | {form} | {' | '.join(cells)} |")
    return "\n".join([*lines, *(f"\n* {note}" for note in found["notes"])])
