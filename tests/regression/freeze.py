"""What the toolkit gives on ``mini``, as plain numbers, and the command that records them anew.

``python tests/regression/freeze.py`` measures everything and prints the differences from ``values.json``;
``--write`` records them; ``--fast`` leaves out the long part.  The values are a memory of this code, not a proof that
it is right (the other tests are): they show that a change of structure changed no number.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("HF_HUB_OFFLINE", "1")
FILE = Path(__file__).with_name("values.json")
RELATIVE, ABSOLUTE = 1e-3, 2e-4
"""Tolerance of a value: sums in float32 may be taken in another order."""


@cache
def _model() -> Any:
    from lvlm_lens import LVLM

    return LVLM.from_pretrained("mini", device="cpu")


def _samples(groups: int, split: str = "test") -> Any:
    """The first groups of a split, whole: chosen here, so that no rule for limits is part of these values."""
    from lvlm_lens import load_dataset

    data = load_dataset("mini").split(split)
    names = list(dict.fromkeys(sample.group for sample in data))[:groups]
    return data.filter(lambda sample: sample.group in names)


def numbers(values: Any) -> list[Any]:
    """An array as nested lists of six digits."""
    return json.loads(json.dumps(np.round(np.asarray(values, dtype=np.float64), 6).tolist()))


def activations() -> dict[str, Any]:
    """States by block in memory, the same from a store on disk, and single numbers of them."""
    from lvlm_lens.activations.capture import capture
    from lvlm_lens.activations.capture_to import capture_to
    from lvlm_lens.activations.store import ActivationStore

    model, data = _model(), _samples(3)
    sites, where = ["resid_post", "mlp_out"], "last | image[0] | question[-2:]"
    held = capture(model, data, sites, where)
    with tempfile.TemporaryDirectory() as folder:
        capture_to(model, data, folder, sites, where, batch_size=5)
        store = ActivationStore.open(folder)
        same = max(float(np.abs(store["resid_post", b] - held["resid_post", b]).max()) for b in range(model.n_blocks))
        read = numbers([np.sqrt((store["resid_post", b] ** 2).mean()) for b in range(model.n_blocks)])
    return {
        "samples": [sample.id for sample in held.samples],
        "resid_post_rms": numbers([np.sqrt((held["resid_post", b] ** 2).mean()) for b in range(model.n_blocks)]),
        "mlp_out_rms": numbers([np.sqrt((held["mlp_out", b] ** 2).mean()) for b in range(model.n_blocks)]),
        "first": numbers(held["resid_post", 5][0, 0, :6]),
        "store_rms": read,
        "store_as_memory": bool(same < 1e-4),
    }


def curves() -> dict[str, Any]:
    """Evidence and the probes' curves with their nulls (no onset, no order test: these are under revision)."""
    from lvlm_lens.measures.evidence import gather
    from lvlm_lens.measures.items import group_names, harm_labels, joint_items
    from lvlm_lens.measures.linear_probe import LinearProbe

    model, data = _model(), _samples(16)
    evidence = gather(model, data)
    labels, groups = harm_labels(evidence.samples), group_names(evidence.samples)
    probe = LinearProbe(permutations=20, replicates=100).fit(evidence, labels, groups, "perception")
    both = joint_items(evidence.samples)
    joint = LinearProbe(permutations=20, replicates=100).fit(
        evidence.rows(both), labels[both], groups[both], "semantics"
    )
    found = {}
    for name, curve in (("perception", probe.curve_), ("semantics", joint.curve_)):
        found[name] = {part: numbers(getattr(curve, part)) for part in ("value", "low", "high", "null")}
    return {
        **found,
        "log_odds": numbers(evidence.log_odds[:8]),
        "lens_log_odds": numbers(evidence.lens_log_odds.mean(0)),
        "lens_kl": numbers(evidence.lens_kl.mean(0)),
        "embedding_rms": numbers(np.sqrt((evidence.embedding**2).mean())),
        "image_rms": numbers(np.sqrt(np.nanmean(evidence.image**2))),
    }


def grids() -> dict[str, Any]:
    """A patch grid of three pairs, both ways, with its null."""
    from lvlm_lens.causal import patch_grid

    model = _model()
    grid = patch_grid(model, _samples(8).pairs()[:3], "resid_pre", "image | question[-3:] | last", per="span", verify=2)
    return {
        "axes": list(grid.axes),
        "values": numbers(grid.values),
        "clean": numbers(grid.clean),
        "corrupted": numbers(grid.corrupted),
        "normalized": numbers(np.nan_to_num(grid.normalized(min_gap=0.0).values)),
    }


def sasa() -> dict[str, Any]:
    """SASA at fixed blocks: features of the second pass by their projection, its probe's log-odds, controls."""
    from lvlm_lens import SASA

    model, train, test = _model(), _samples(6, "train"), _samples(3)
    found: dict[str, Any] = {}
    for name, options in {
        "logits": {},
        "fused_resid": {"features": "fused_resid"},
        "residual": {"mode": "residual"},
        "onto_safety": {"projection": "onto_safety"},
        "last": {"positions": "last"},
        "random": {"control": "random"},
        "no_projection": {"control": "no_projection"},
    }.items():
        made = SASA(safety_block=4, fused_block=7, **options).fit(model, train)  # type: ignore[arg-type]
        scores = made.decision_function(model, test)
        found[name] = {"scores": numbers(scores), "negative_share": numbers(made.negative_share_)}
    return found


def answers() -> dict[str, Any]:
    """Answers of the undefended model and of a few defences, with the rates."""
    from lvlm_lens.defenses import SASA, FirstTokenProbe, SafetyPrompt
    from lvlm_lens.evaluate.evaluation import evaluate

    model = _model()
    defenses = [SafetyPrompt(), FirstTokenProbe(), SASA(safety_block=4, fused_block=7)]
    result = evaluate(model, list(_samples(4)), defenses, train=list(_samples(6, "train")), max_new_tokens=8)
    rows = {
        row["system"]: {key: numbers(row[key]["value"]) for key in ("attack_success", "complied", "over_refusal")}
        for row in result.rows
    }
    said = {name: [answer.text for answer in found] for name, found in result.answers.items()}
    return {"rows": rows, "answers": said}


def measured() -> dict[str, Any]:
    """Curves of the default measures of a sweep on some sixty items, what SASA's report says, and the defence table."""
    from lvlm_lens.config import SweepConfig
    from lvlm_lens.sweep import run_sweep

    with tempfile.TemporaryDirectory() as folder:
        result = run_sweep(
            SweepConfig(out=folder, limit=60, permutations=20, replicates=100, pairs=3, sasa=True, defenses=True)
        ).data
    return {
        "samples": result["dataset"]["samples"],
        "curves": {row["name"]: numbers(row["value"]) for row in result["curves"]},
        "causal": {key: result["causal"].get(key) for key in ("done", "pairs", "engine")},
        "sasa_map": [[c["safety"], c["fused"], numbers(c["cv_auroc"])] for c in result["sasa"]["map"]["cells"]],
        "sasa_controls": {row["name"]: numbers(row["auroc"]) for row in result["sasa"]["controls"]},
        "defenses": {
            row["system"]: {key: row[key]["value"] for key in ("attack_success", "complied", "over_refusal")}
            for row in result["defenses"]["rows"]
        },
    }


def registry() -> dict[str, Any]:
    """Every registered measure on some ninety items: curves with intervals, null and baselines, findings, consensus."""
    from lvlm_lens.config import SweepConfig
    from lvlm_lens.stages.measuring import MEASURES
    from lvlm_lens.sweep import run_sweep

    with tempfile.TemporaryDirectory() as folder:
        result = run_sweep(
            SweepConfig(
                out=folder, limit=96, permutations=20, replicates=100, pairs=0, sasa=False, defenses=False,
                measures=",".join(MEASURES),
            )
        ).data  # fmt: skip
    places = ("found", "onset", "onset_low", "onset_high", "range")
    rows = result["measures"]
    return {
        "curves": {
            row["name"]: {part: row.get(part) for part in ("value", "low", "high", "null", "baselines")}
            for row in result["curves"]
        },
        "reasons": {name: row.get("reason") for name, row in rows.items()},
        "findings": {name: {key: row["finding"][key] for key in places} for name, row in rows.items()
                     if row.get("finding")},
        "roles": {role: {key: found[key] for key in places} for role, found in result["roles"].items()},
        "consensus": {
            role: {key: found.get(key) for key in ("found", "onset", "onset_low", "onset_high", "spread")}
            for role, found in result["consensus"].items()
        },
    }  # fmt: skip


def selftest() -> dict[str, Any]:
    """Truths of a few constructed models and what their own states are (not what the measures find)."""
    from lvlm_lens.selftest.study import SelfTest
    from lvlm_lens.selftest.trial import read

    found = {}
    for number in range(2):
        plan = SelfTest(seed=1).plan(number)
        readings = read(plan, 12)
        found[f"{number}"] = {
            "plan": json.loads(json.dumps(plan.to_dict())),
            "lens": numbers(readings.evidence.lens_log_odds.mean(0)),
            "rms": numbers(np.sqrt((readings.evidence.resid**2).mean((0, 2)))),
        }
    return found


FAST: dict[str, Callable[[], dict[str, Any]]] = {
    "activations": activations, "curves": curves, "grids": grids, "sasa": sasa, "answers": answers,
    "selftest": selftest,
}  # fmt: skip
LONG: dict[str, Callable[[], dict[str, Any]]] = {"measured": measured, "registry": registry}


def differences(old: Any, new: Any, place: str = "") -> Iterator[str]:
    """Places at which two records differ by more than the tolerance, with both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            if key not in old or key not in new:
                yield f"{place}.{key}: only {'recorded' if key in old else 'measured'}"
            else:
                yield from differences(old[key], new[key], f"{place}.{key}")
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{place}: {len(old)} recorded, {len(new)} measured"
        for at, (a, b) in enumerate(zip(old, new, strict=False)):
            yield from differences(a, b, f"{place}[{at}]")
    elif isinstance(old, (int, float)) and isinstance(new, (int, float)) and not isinstance(old, bool):
        same = math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE) or (math.isnan(old) and math.isnan(new))
        if not same:
            yield f"{place}: {old} recorded, {new} measured"
    elif old != new:
        yield f"{place}: {old!r} recorded, {new!r} measured"


def main() -> int:
    """Print the differences from the record; write it where asked."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="record what was measured")
    parser.add_argument("--fast", action="store_true", help="leave the long part as it is recorded")
    parser.add_argument("parts", nargs="*", help=f"only these: {', '.join({**FAST, **LONG})}")
    options = parser.parse_args()
    record = json.loads(FILE.read_text()) if FILE.is_file() else {}
    parts = FAST if options.fast else {**FAST, **LONG}
    found: dict[str, Any] = {}
    for name, measure in parts.items():
        if not options.parts or name in options.parts:
            start = time.process_time()
            found[name] = measure()
            print(f"{name}: {time.process_time() - start:.0f} s of processor time", file=sys.stderr)
    lines = list(differences({name: record.get(name, {}) for name in found}, found))
    print("\n".join(lines) or "no differences")
    if options.write:
        FILE.write_text(json.dumps({**record, **found}) + "\n")
        print(f"{len(lines)} differences recorded in {FILE.name}")
        return 0
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
