"""One call that answers: does SASA help on this model, and is it the projection that helps?

``sasa_report`` gives a :class:`SASAReport` whose first line is the verdict: better, worse, equivalent, or not to be
told, against the same probe without projection, the later blocks run again without it, and the best single block, in a
:mod:`.contest` in which every method chooses its blocks and C in the same way and is fitted anew in every split.
The map and the table of controls speak of one split and of the probes fitted there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..activations.loop import readable
from ..data import Dataset, Sample
from ..data.groups import groups_of
from ..data.limits import limited_rows
from ..data.splits import train_and_test
from ..errors import UsageError
from ..evaluate.cost import Cost, metered
from ..evaluate.rates import rate
from ..lens import LVLM
from ..models.refusal_tokens import refusal_log_odds, refusal_token_ids
from ..progress import part
from ..stats.resampling import group_folds
from ..storage.plain import plain
from .base import threshold_at
from .contest import MARGIN, REPEATS
from .extraction import Extracted, extract
from .probe import LogisticProbe
from .projection import Cell
from .sasa import SASA, block_number, blocks_of_roles, candidate_blocks, out_of_fold
from .sasa_causal import causal_report
from .sasa_contest import contest_line, run_contest
from .sasa_map import (
    VARIANTS,
    Split,
    compare,
    gain_map,
    label_efficiency,
    make_split,
    variant_cells,
)
from .sasa_map import test_scores as scores_on_test
from .sasa_patching import patching_report
from .sasa_transfer import MAIN, REFERENCE, conveyed_row, other_set_row
from .tuned import TunedProbe

SIZES = (10, 20, 50, 100, 200, 500)
FALSE_POSITIVES = (0.01, 0.05)
QUICK_SUBSETS = 3
"""Subsets of the training part a size, in a quick report."""


@dataclass
class SASAReport:
    """Everything ``lvlm-lens sasa`` prints; ``to_dict()`` is JSON-ready, ``str()`` is the page's text.

    Attributes:
        verdict: the first line.
        setting: model, data, blocks and how they were chosen, sizes, feature, engine, largest resume error.
        contest: one row a rival (:func:`~lvlm_lens.defenses.contest.decide`).
        reference, sasa, gain: AUROC without and with projection, and the paired difference, on the one test part.
        map: the s x f map (see :func:`~lvlm_lens.defenses.sasa_map.gain_map`).
        controls: one row a control or variant.
        label_efficiency: one row per training size.
        transfer: one row a transfer; rows that are not possible say why under ``reason``.
        guard: refusal and over-refusal of the guard at each false-positive rate.
        cost: measured cost of a query, undefended and guarded.
        causal: see :func:`~lvlm_lens.defenses.sasa_causal.causal_report`.
        patching: see :func:`~lvlm_lens.defenses.sasa_patching.patching_report`.
        notes: what a reader should know.
    """

    verdict: str
    setting: dict[str, Any]
    contest: list[dict[str, Any]]
    reference: dict[str, float]
    sasa: dict[str, float]
    gain: dict[str, float]
    map: dict[str, Any]
    controls: list[dict[str, Any]]
    label_efficiency: list[dict[str, Any]]
    transfer: list[dict[str, Any]]
    guard: list[dict[str, Any]]
    cost: dict[str, Any]
    causal: dict[str, Any]
    patching: dict[str, Any]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: plain numbers, ``None`` for what is not a number."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SASAReport:
        """Inverse of :meth:`to_dict`, up to numbers that are not numbers; other keys are passed over."""
        return cls(**{field.name: data[field.name] for field in fields(cls)})

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=1)

    def map_frame(self) -> Any:
        """The map as a pandas frame, one row per cell."""
        import pandas as pd

        return pd.DataFrame(self.map["cells"])

    def __str__(self) -> str:
        lines = [self.verdict, "", "contest (everything chosen and fitted anew in each split)"]
        lines += [f"  {contest_line(row)}" for row in self.contest]
        lines += [f"one split, probes as fitted; over the map {self.map['attainable']}"]
        for row in self.controls:
            gain = row.get("over_reference")
            text = f"  {row['name']:<14} AUROC {row['auroc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            if gain:
                text += f"   over no projection {gain['gain']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
                text += f" p={gain['p_adjusted']:.3f}"
            lines.append(f"{text}   {row['meaning']}")
        lines.append("label efficiency (training samples: SASA | without projection)")
        lines += [
            f"  {row['size']:>4}: {row['sasa']['auroc']:.3f} | {row['plain']['auroc']:.3f}   gain "
            f"{row['gain']['gain']:+.3f} [{row['gain']['low']:+.3f}, {row['gain']['high']:+.3f}]"
            for row in self.label_efficiency
        ]
        for row in self.transfer:
            if "reason" in row:
                lines.append(f"transfer {row['name']}: not measured, {row['reason']}")
            else:
                lines.append(
                    f"transfer {row['name']}: {row['sasa']['auroc']:.3f} | {row['plain']['auroc']:.3f}   gain "
                    f"{row['gain']['gain']:+.3f} [{row['gain']['low']:+.3f}, {row['gain']['high']:+.3f}]"
                )
        for row in self.guard:
            refused, over = (
                f"{r['rate']:.1%} [{r['low']:.1%}, {r['high']:.1%}]" for r in (row["refusal"], row["over_refusal"])
            )
            lines.append(
                f"guard at {row['fpr']:.0%} false positives on training data: refuses {refused} of harmful and {over} "
                "of harmless"
            )
        extra = self.cost["extra"]
        lines.append(
            f"extra cost a query: {extra['forwards']:.2f} forwards, {extra['tokens']:.0f} tokens, "
            f"{1000 * extra['seconds']:.1f} ms"
        )
        lines.append(self._patching_line())
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _patching_line(self) -> str:
        found = self.patching
        if not found["done"]:
            return f"patch grids before and after the projection: not made, {found['reason']}"
        moved = sum(cell["low"] > 0 or cell["high"] < 0 for cell in found["cells"])
        return (
            f"patch grids before and after the projection: {found['pairs']} pairs, gap of the refusal log-odds "
            f"{found['gap_plain']:.2f} and {found['gap_projected']:.2f} nats; the change leaves out 0 in "
            f"{moved} of {len(found['cells'])} cells (not adjusted)"
        )


def sasa_report(
    model: LVLM,
    data: Sequence[Sample],
    *,
    roles: Any = None,
    safety_block: int | None = None,
    fused_block: int | None = None,
    features: str = "logits",
    mode: str = "replace",
    positions: str = "all",
    projection: str = "onto_fused",
    C: float = 1.0,
    candidates: Sequence[int] | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
    sizes: Sequence[int] = SIZES,
    seeds: int = 5,
    transfer_to: Sequence[Dataset] = (),
    quick: bool = False,
    replicates: int = 1000,
    batch_size: int = 32,
    seed: int = 0,
    out: Path | None = None,
    strict: bool = False,
) -> SASAReport:
    """Measure SASA on a model and a data set.

    Args:
        model: the model.
        data: labelled samples; splits ``train`` and ``test`` are used where they exist.
        roles: located roles, whose blocks are used where they allow SASA.
        safety_block, fused_block: blocks given by hand; they win over roles.  With neither the cell of the map
            with the highest cross-validated AUROC on training data is used.
        features, mode, positions, projection: of :class:`~lvlm_lens.defenses.sasa.SASA`.
        C: of the guard's probe, as published; everywhere else C is chosen (:mod:`~lvlm_lens.defenses.tuned`).
        candidates: blocks of the map; default every block, or four evenly spaced ones with ``quick``.
        n_train, n_test: at most so many samples (whole groups); default all, or 64 each with ``quick``.
        sizes: training sizes of the label-efficiency curve, those there are enough samples for.
        seeds: subsets a size.
        transfer_to: further data sets on which the fitted probes are scored.
        quick: the smaller defaults above, controls without the variants of mode and position, 3 subsets a size, and a
            contest of 5 splits in place of 15.
        replicates: of the bootstrap over test groups.
        batch_size: rows per forward; the patch grids at the deciding blocks take what memory allows.
        seed: of everything drawn.
        out: where the passes of each batch are kept, so that a stopped report continues.
        strict: stop at the first sample that cannot be encoded; else it is left out and named in the notes.

    Raises:
        UsageError, DataError: as :class:`~lvlm_lens.defenses.sasa.SASA`.
    """
    if quick:
        n_train, n_test = n_train or 64, n_test or 64
        seeds = min(seeds, QUICK_SUBSETS)
    notes: list[str] = []
    note = None if strict else lambda sample, error: notes.append(f"left out: {error}")
    train, test = (readable(model, part, note) for part in train_and_test(data, n_train, n_test, seed))
    split = make_split(train, test, replicates, seed)
    blocks = candidate_blocks(model, candidates, 4 if quick else model.n_blocks)
    options = {"mode": mode, "positions": positions, "projection": projection, "random_state": seed}
    template = SASA(features=features, C=C, batch_size=batch_size, **options)  # type: ignore[arg-type]
    cells = {(s, f): template.cell(s, f) for s in blocks for f in blocks if s < f}
    asked, chosen_by = _asked(model, roles, safety_block, fused_block, notes)
    if asked is not None:
        cells.setdefault(asked, template.cell(*asked))
    every = range(model.n_blocks)
    wanted = list(cells.values())
    with part(0.0, 0.3, f"map of {len(wanted)} pairs of blocks, {len(train)} + {len(test)} samples"):
        made = extract(model, split.samples, wanted, features, batch_size, every, out=out)  # type: ignore[arg-type]
    fold = group_folds(split.y_train, groups_of(train), min(4, len(set(groups_of(train)))), seed)
    reference, _ = scores_on_test(split, made.plain)
    with part(0.3, 0.4, "probes of the map"):
        table = gain_map(split, made, list(cells.values()), reference)
    given = asked
    if asked is None:
        best = max(table["cells"], key=lambda row: (round(row["cv_auroc"], 6), row["safety"]))
        asked, chosen_by = (best["safety"], best["fused"]), "cross-validation on training data, over the map"
    cell = cells[asked]
    others = variant_cells(cell, any(sample.images for sample in split.samples), controls_only=quick)
    if batch_size == 1 and others.pop("other_sample", None) is not None:
        notes.append("other_sample left out: it takes another prompt of the batch, and a batch is one prompt here")
    with part(0.4, 0.5, f"controls at blocks {cell.safety} and {cell.fused}"):
        varied = extract(
            model, split.samples, list(others.values()), features, batch_size, (cell.fused,), made.engine, out  # type: ignore[arg-type]
        )  # fmt: skip
    rows: dict[str, np.ndarray] = {REFERENCE: made.plain, MAIN: made.cells[cell]}
    rows |= {name: varied.cells[other] for name, other in others.items()}
    rows["plain_fused"] = varied.plain_resid[cell.fused]
    meanings = {name: meaning for name, (meaning, _) in VARIANTS.items()} | {
        REFERENCE: "the same probe at the same training size on the plain pass",
        MAIN: f"projection of block {cell.safety} on block {cell.fused}",
        "plain_fused": "no projection: the probe on the plain residual after the fused block",
    }
    with part(0.5, 0.55, "controls"):
        controls = compare(split, rows, meanings, REFERENCE, MAIN)
    by_name = {row["name"]: row for row in controls}
    gain = by_name[MAIN]["over_reference"]
    with part(0.55, 0.65, "label efficiency"):
        curve = label_efficiency(split, rows[MAIN], rows[REFERENCE], sizes, seeds, seed)
    entrants = list(cells.values()) if given is None else [cell]
    with part(0.65, 0.9, "contest with its rivals"):
        contest = run_contest(model, split, made, entrants, features, batch_size, 1 if quick else REPEATS)
    fitted = {
        name: TunedProbe().fit(split.parts(rows[name])[0], split.y_train, groups_of(train), seed)
        for name in (MAIN, REFERENCE)
    }
    moves = [conveyed_row(model, split, cell, made, template, rows, replicates)]
    moves += [other_set_row(model, other, cell, made, template, fitted, n_test, replicates) for other in transfer_to]
    guard = [_guard(split, made, rows[MAIN], fold, fpr, C, model) for fpr in FALSE_POSITIVES]
    cost = _cost(model, split, features, batch_size, cell, made.engine)
    few = [test[i] for i in limited_rows(test, 32 if quick else 128, seed)]
    with part(0.92, 0.96, "refusal log-odds by block"):
        causal = causal_report(model, few, cell, batch_size, replicates, seed, made.engine)
    patching: dict[str, Any] = {"done": False, "reason": "left out of the quick report"}
    if not quick:
        with part(0.96, 1.0, "patch grids before and after the projection"):
            patching, _ = patching_report(model, test, cell, batch_size=batch_size, seed=seed)
    setting = {
        "model": model.name,
        "data": getattr(data, "name", ""),
        "safety_block": cell.safety,
        "fused_block": cell.fused,
        "n_blocks": model.n_blocks,
        "chosen_by": chosen_by,
        "n_train": len(train),
        "n_test": len(test),
        "features": features,
        "margin": MARGIN,
        "C_of_guard": C,
        **options,
        "negative_share": made.negative[cell] / max(made.tokens[cell], 1),
        "engine": made.engine,
        "check_error": made.check_error,
        "quick": quick,
    }
    if not made.engine.startswith("resumed"):
        notes.append(f"second passes ran as {made.engine}")
    notes.append(SASA.approximation)
    return SASAReport(
        verdict=_verdict(setting, by_name, contest, table),
        setting=setting,
        contest=contest,
        reference={k: by_name[REFERENCE][k] for k in ("auroc", "low", "high")},
        sasa={k: by_name[MAIN][k] for k in ("auroc", "low", "high")},
        gain=gain,
        map=table,
        controls=controls,
        label_efficiency=curve,
        transfer=moves,
        guard=guard,
        cost=cost,
        causal=causal,
        patching=patching,
        notes=notes,
    )


def _asked(
    model: LVLM, roles: Any, safety: int | None, fused: int | None, notes: list[str]
) -> tuple[tuple[int, int] | None, str]:
    """Blocks given by hand or by roles; roles that do not allow SASA become a note."""
    if (safety is None) != (fused is None):
        raise UsageError("safety_block and fused_block are given together, or neither")
    if safety is not None and fused is not None:
        pair = block_number(model, safety), block_number(model, fused)
        Cell(*pair)  # the order is checked here, before anything runs
        return pair, "given"
    if roles is not None:
        try:
            return blocks_of_roles(roles), "located roles"
        except UsageError as error:
            notes.append(f"located roles give no blocks for SASA: {error}")
    return None, ""


def _verdict(
    setting: dict[str, Any], rows: dict[str, dict[str, Any]], contest: list[dict[str, Any]], table: dict[str, Any]
) -> str:
    """One honest line: what the contest says against each rival, and whether a control does as well."""
    by_rival = {row["rival"]: row for row in contest}
    first = by_rival[REFERENCE]
    name = setting["model"]
    says = {
        "better": f"SASA is better on {name} than the same probe without projection",
        "worse": f"SASA is worse on {name} than the same probe without projection",
        "equivalent": f"SASA is equivalent on {name} to the same probe without projection",
        "cannot be told": f"Whether SASA gains on {name} over the same probe without projection cannot be told",
    }[first["verdict"]]
    numbers = f"{first['value']:+.3f} [{first['low']:+.3f}, {first['high']:+.3f}] AUROC"
    others = "; ".join(
        f"against {row['meaning']}: {row['verdict']}, {row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        for rival, row in by_rival.items()
        if rival != REFERENCE
    )
    how = (
        f"{first['splits']} splits, blocks and C chosen and fitted anew in each, equivalent within {first['margin']:g}"
    )
    known = [c for c in ("other_sample", "random", "norm_matched") if c in rows]
    equal = [c for c in known if rows[c]["sasa_over_this"]["low"] <= 0]
    but = ""
    if first["verdict"] == "better" and equal:
        but = f"; but {', '.join(equal)} does as well on the test part, so the gain is not this projection's"
    cells = table["cells"]
    gain, lose = (sum(c["p_adjusted"] <= 0.05 and c["gain"] * side > 0 for c in cells) for side in (1, -1))
    tail = f"of {len(cells)} cells of the map {gain} gain and {lose} lose at a family-wise level of 5 %"
    return f"{says}: {numbers} ({how}); {others}{but}; {tail}."


def _guard(
    split: Split, made: Extracted, rows: np.ndarray, fold: np.ndarray, fpr: float, C: float, model: LVLM
) -> dict[str, Any]:
    """Threshold from out-of-fold scores of harmless training samples; rates on the test part."""
    train, test = split.parts(rows)
    harmless = out_of_fold(train, split.y_train, fold, C)[split.y_train == 0]
    threshold = threshold_at(harmless, fpr)
    flagged = LogisticProbe(C).fit(train, split.y_train).decision_function(test) >= threshold
    own = refusal_log_odds(torch.from_numpy(split.parts(made.plain_logits)[1]), refusal_token_ids(model)).numpy() > 0
    row: dict[str, Any] = {"fpr": fpr, "threshold": threshold}
    groups = groups_of(split.test)
    for name, label in (("refusal", 1), ("over_refusal", 0)):
        chosen = split.y_test == label
        row[name] = _rate(flagged, chosen, groups)
        row[f"{name}_with_own"] = _rate(flagged | own, chosen, groups)
        row[f"{name}_undefended"] = _rate(own, chosen, groups)
    return row


def _rate(outcomes: np.ndarray, chosen: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Share among the chosen samples with its interval over groups."""
    found = rate(outcomes[chosen].tolist(), groups=groups[chosen].tolist())
    return {"rate": found.value, "low": found.low, "high": found.high, "total": found.total}


def _cost(model: LVLM, split: Split, features: str, batch_size: int, cell: Cell, engine: str) -> dict[str, Any]:
    """Cost of scoring a query beside one plain forward, measured on up to 16 test samples.

    The guard scores, then the original model answers what is let through; so its extra cost a query is that of the
    scoring, whatever the answers' length (refused queries save their generation).
    """
    some = split.test[:16]
    found: dict[str, Any] = {}
    for name, cells in (("plain_forward", []), ("extra", [cell])):
        spent = Cost()
        with metered(model, spent, len(some)):
            extract(model, some, cells, features, batch_size, engine=engine)  # type: ignore[arg-type]
        found[name] = spent.per_query()
    return found
