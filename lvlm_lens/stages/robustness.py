"""Are the roles where they are whatever sample, seed, position, template and pooling are taken?

Each role's headline curve is measured again under every variant, and on a half, a quarter and an eighth of the groups:
the onset against the number of items.  The reference and the variants are compared without
the twin's curve (it was read at one place only) and with the same scalar baselines (words, picture, input embedding),
so that all have the same floor to rise above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..errors import LensError
from ..locate.elsewhere import Reading, read_elsewhere
from ..locate.robustness import fewer_items, robustness_table, sample_and_seed, summary
from ..measures.blocks import as_blocks
from ..measures.items import joint_items
from ..measures.lens_log_odds import lens_curve
from ..measures.linear_probe import LinearProbe, with_rise
from ..measures.study import Study
from ..stats.curve import Curve
from ..stats.resampling import group_folds

MOST = 300
"""Items that are read again."""

SYSTEM = "You are a helpful assistant. Answer briefly."
PLACES = {"last question token": "question[-1]", "mean of the question": "question", "mean of all tokens": "all"}

Measure = Callable[[Any, np.ndarray, np.ndarray, int], Curve]


def robustness_stage(study: Study) -> dict[str, Any]:
    """Tables and summaries by role, as plain records; ``items`` says how many were read again.

    A variant that cannot be measured (a template without system prompts, say) is a row with its reason.
    """
    rows = study.some(np.arange(len(study.samples)), MOST)
    readings, failed = _readings(study, rows)
    joint = joint_items(study.samples)
    both = joint[rows]
    tables, summaries = {}, {}
    for role, source in (("perception", "perception"), ("semantics", "semantics"), ("expression", "expression")):
        reference = study.located.curves.get(source)
        if reference is None:
            continue
        mask = both if role == "semantics" else np.ones(len(rows), dtype=bool)
        measure = _lens if role == "expression" else _probe(study)
        reference = _comparable(reference, reference)
        labels, groups = study.labels[rows][mask], study.groups[rows][mask]

        chosen = joint if role == "semantics" else slice(None)
        whole = as_blocks(_own(study, role), study.evidence.blocks)
        again = partial(_again, measure, reference, study.seed)
        variants: dict[str, dict[str, Callable[[], Curve]]] = dict(
            sample_and_seed(again, whole, study.labels[chosen], study.groups[chosen], halves=1)
        )
        variants["items"] = fewer_items(again, whole, study.labels[chosen], study.groups[chosen], study.seed)
        for factor, settings in readings.items():
            variants[factor] = {}
            for name, reading in settings.items():
                states = reading.lens_log_odds[:, :, None] if role == "expression" else reading.resid
                read = as_blocks(states[mask], study.evidence.blocks)
                variants[factor][name] = partial(again, read, labels, groups, 0)
        for (factor, name), error in failed.items():
            variants.setdefault(factor, {})[name] = _failing(error)
        table = robustness_table(role, reference, variants)
        tables[role] = _records(table)
        summaries[role] = _records(summary(table))
        study.progress("robustness", len(tables), 3)
    return {"done": True, "items": len(rows), "tables": tables, "summary": summaries}


def _again(
    measure: Measure, reference: Curve, base_seed: int, activations: Any, labels: Any, groups: Any, seed: int
) -> Curve:
    return _comparable(measure(activations, np.asarray(labels), np.asarray(groups), base_seed + seed), reference)


def _records(table: Any) -> list[dict[str, Any]]:
    return [
        {key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in row.items()}
        for row in table.astype(object).to_dict(orient="records")
    ]


def _failing(error: LensError) -> Callable[[], Curve]:
    def run() -> Curve:
        raise error

    return run


def _readings(study: Study, rows: np.ndarray) -> tuple[dict[str, dict[str, Reading]], dict[tuple[str, str], LensError]]:
    samples = [study.samples[row] for row in rows]
    found: dict[str, dict[str, Reading]] = {"position": {}, "template": {}, "pooling": {}}
    failed: dict[tuple[str, str], LensError] = {}

    def read(named: dict[tuple[str, str], str], shown: list[Any], **options: Any) -> None:
        where = {f"{factor}/{name}": place for (factor, name), place in named.items()}
        try:
            made = read_elsewhere(
                study.model, shown, where, study.evidence.blocks, study.evidence.refusal_ids,
                batch_size=study.batch_size,
                progress=lambda done, total: study.progress(f"reading: {next(iter(named))[1]}", done, total), **options,
            )  # fmt: skip
        except LensError as error:
            failed.update(dict.fromkeys(named, error))
            return
        for factor, name in named:
            found[factor][name] = made[f"{factor}/{name}"]

    read({("position" if "token" in name.split()[-1:] else "pooling", name): p for name, p in PLACES.items()}, samples)
    read({("position", "first generated token"): "last"}, samples, first_tokens=study.evidence.top[rows].tolist())
    read({("template", "a system prompt"): study.positions}, samples, system=SYSTEM)
    wrapped = [replace(sample, text=f"Question: {sample.text}") for sample in samples]
    read({("template", '"Question:" before the words'): study.positions}, wrapped)
    return {factor: settings for factor, settings in found.items() if settings}, failed


def _own(study: Study, role: str) -> np.ndarray:
    """What the role's curve reads in the study: ``[n, block, *]``."""
    if role == "expression":
        return study.evidence.lens_log_odds[:, :, None]
    if role == "semantics":
        return study.evidence.resid[joint_items(study.samples)]
    return study.evidence.resid


def _comparable(curve: Curve, reference: Curve) -> Curve:
    """With the reference's scalar baselines and no other."""
    scalars = {name: replace(b, replicates=None) for name, b in reference.baselines.items() if b.scalar}
    return replace(curve, baselines=scalars, meta={**curve.meta, "depth": reference.meta.get("depth", len(reference))})


def _probe(study: Study) -> Measure:
    def measure(activations: Any, labels: np.ndarray, groups: np.ndarray, seed: int) -> Curve:
        probe = LinearProbe(
            folds=study.folds, permutations=20, replicates=min(study.replicates, 300), random_state=seed
        )
        curve = probe.fit(activations, labels, groups).curve_
        return with_rise(curve, activations, labels, groups, probe.fold_, seed)

    return measure


def _lens(activations: Any, labels: np.ndarray, groups: np.ndarray, seed: int) -> Curve:
    """AUROC of the lens's refusal log-odds, ``[n, block, 1]``."""
    source = as_blocks(activations)
    scores = np.concatenate([source.block(block) for block in source.blocks], 1)
    settings = {"random_state": seed, "replicates": 300, "permutations": 40}
    return lens_curve(scores, source.blocks, labels, groups, group_folds(labels, groups, seed=seed), settings)
