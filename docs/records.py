"""The pages of ``docs/`` that show committed records: studies, benchmarks, trainings, recipes on real weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        lines.append("| " + " | ".join(str(value).replace("|", "\\|").replace("\n", " ") for value in row) + " |")
    return lines


def selftest() -> list[str]:
    """The recorded study of models whose answer is known."""
    from lvlm_lens.measures.registry import MEASURES
    from lvlm_lens.measures.spec import PLANTED
    from lvlm_lens.selftest import load_record

    def cell(share: dict[str, Any]) -> str:
        if share["value"] is None:
            return "-"
        return f"{share['value']:.0%} [{share['low']:.0%}, {share['high']:.0%}] ({share['n']})".replace("%", " %")

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    def reached(targets: dict[str, bool | None]) -> str:
        missed = [key.replace("_", " ") for key, good in targets.items() if good is False]
        return f"missed: {', '.join(missed)}" if missed else "reached" if all(targets.values()) else "not all tested"

    record = load_record()
    largest = max(record["pairs"])
    behind = {name: spec for spec in MEASURES.values() for name in (spec.name, *spec.variants)}
    header = [
        "measure",
        "finds",
        "onset within one block",
        "truth inside the interval",
        "width, blocks",
        "false alarms",
    ]
    rows = [
        [
            f"`{row['measure']}`", behind[row["measure"]].planted, cell(row["within_one_block"]), cell(row["inside"]),
            number(row["width"]), cell(row["false_alarms"]), reached(row["targets"]),
        ]
        for row in record["measures"] if row["pairs"] == largest
    ]  # fmt: skip
    fewer = [
        [f"`{row['measure']}`", row["pairs"], cell(row["within_one_block"]), cell(row["inside"]),
         cell(row["false_alarms"])]
        for row in record["measures"] if row["pairs"] < largest
    ]  # fmt: skip
    order = [
        [
            row["pairs"],
            cell(row["level"]),
            cell(row["power_gap_2"]),
            cell(row["power_wider_gap"]),
            reached(row["targets"]),
        ]
        for row in record["order_test"]
    ]
    page = HERE / "selftest.md"
    written = page.read_text(encoding="utf-8") if page.is_file() else ""
    _, heading, rest = written.partition("## What it says")  # from here on by hand
    settings = ", ".join(f"{record[key]} {key}" for key in ("folds", "permutations", "replicates"))
    return [
        "# Can the measures be trusted?",
        "",
        "`lvlm-lens selftest` builds LLaVA models whose answer is known by construction of their weights: harm becomes "
        "readable at one block, the conjunction of picture and words at another, the refusal token rises at a third, "
        "amid distractors and spurious cues, or one of the three is absent. Each model is read, located and asked by "
        f"the registered measures themselves, with what a sweep has by default ({settings}; a random-weight twin). A "
        "measure that misses a target keeps its row, is marked × in every figure and is not counted in the consensus.",
        "",
        "Targets: onset within one block in 95 % of the models that have what the measure finds (not found counts as a "
        "failure); truth inside the interval in 90 to 98 % of the found ones (more only where the interval is on "
        "average less than half a block wider than one block); false alarms in at most 5 % of the models that do not "
        f"have it. Shares with Wilson 95 % intervals and counts. {record['models']} models, seed {record['seed']}, "
        f"{largest} pairs; record in `lvlm_lens/selftest/record.json`.",
        "",
        *table([*header, "targets"], rows),
        "",
        "What they find: " + "; ".join(f"*{name}*: {what}" for name, what in PLANTED.items()) + ".",
        "",
        "## On fewer pairs: what the locating gives anyway",
        "",
        *table(["measure", "pairs", "onset within one block", "truth inside the interval", "false alarms"], fewer),
        "",
        "## Order test, perception before semantics",
        "",
        "Level: found earlier although it is not (target: at most 5 %); power where semantics comes exactly two blocks "
        "later (target: at least 90 %).",
        "",
        *table(["pairs", "level", "power, gap of two", "power, wider gap", "targets"], order),
        "",
        "## Measures that these models cannot test",
        "",
        *table(["measure", "why"], [[f"`{name}`", why] for name, why in record["untested"].items()]),
        "",
        (heading + rest).rstrip(),
    ]


def wide() -> list[str]:
    """The record of the wide battery."""
    import json

    from lvlm_lens.wide.battery import COLUMNS, DTYPES, table_rows
    from lvlm_lens.wide.shapes import SHAPES

    record = json.loads((HERE.parent / "benchmarks" / "wide.json").read_text(encoding="utf-8"))
    done = {(row["model"], row["dtype"]) for row in record["rows"]}
    missing = [f"{name} in {dtype}" for dtype in DTYPES for name in SHAPES if (name, dtype) not in done]
    notes = [
        f"{row['model']}: pictures {row['pictures']}" for row in record["rows"] if row["pictures"] != "as published"
    ]
    machine = ", ".join(f"{key} {value}" for key, value in record["machine"].items())
    return [
        "# Models at true width",
        "",
        "`lvlm-lens models --check --wide` builds well-known models from configuration: true widths, heads, "
        "vocabularies and towers, two blocks of the decoder and two of the tower, random weights. Each row runs, in a "
        "process of its own, the check on load, capture, lens, locate, patch and SASA on 16 requests (two of them with "
        "a picture) and holds every stage against plain Hugging Face forwards of one row each on the processor's "
        "untouched output. *Difference*: the largest, as a share of the largest value; a row is ok up to 2e-4 in "
        "float32 and 5e-2 in bfloat16. *Noise*: the same plain forward against itself with the row twice in its batch; "
        "*padded*: plain forwards of the rows of words, four in a batch padded on the left by at least 8 tokens, "
        "against the same rows alone (logits, and the residual stream after each block at the last token): the "
        "yardstick of stages that read in batches. "
        "*Peak*: of the process, Python and its libraries (about 0.6 GiB) included. Seconds are those of the "
        "process on one thread; *wall*: on the clock, on a machine that others were using, so upper bounds.",
        "",
        *table(COLUMNS, table_rows(record)),
        "",
        f"Record: `benchmarks/wide.json` ({machine}). "
        + (f"Not run yet: {', '.join(missing)}; the same command continues the record." if missing else ""),
        *sorted({f"{note}." for note in notes}),
        "",
        "## Where each size was read",
        "",
        *table(["model", "configuration of", "read in"], [[n, f"`{s.hub}`", s.source] for n, s in SHAPES.items()]),
        "",
        "## What padding does",
        "",
        "Capture reads four rows in a batch, padded on the left to the longest. Padding alone moves plain Hugging Face "
        "forwards by as much as capture differs from single rows: with rows of one length in a batch nothing moves "
        "(measured on SmolVLM-2.2B in bfloat16: 0 in both blocks), with padding by one to two and a half steps of "
        "bfloat16 at the largest value. `--batch-size 1` gives the unpadded numbers.",
    ]


def science() -> list[str]:
    """Every rule of inference on planted cases, before and now."""
    from lvlm_lens.selftest.audit.run import audit_table, load_audit

    record = load_audit()
    page = HERE / "science.md"
    written = page.read_text(encoding="utf-8") if page.is_file() else ""
    _, heading, rest = written.partition("## What each rule does now")  # from here on by hand
    return [
        "# What the statistics can be trusted with",
        "",
        "`lvlm-lens selftest --audit` draws arrays whose truth is known and asks every rule of inference, beside the "
        "rule that it replaced. The targets stand in the code of the cases (`lvlm_lens/selftest/audit/`); they were "
        "fixed after trial runs with seed 0, before seeds 1 and 2, and a missed one stays in the table. Shares have "
        "Wilson 95 % intervals and their counts.",
        "",
        f"{record.get('origin') or 'One run with seed ' + str(record['seed'])}. {record['missed']} targets missed; "
        "counts are the draws of a row."
        + (f" Not in the record yet: {record['absent']}." if record.get("absent") else ""),
        "",
        audit_table(record),
        "",
        (heading + rest).rstrip(),
    ]


def trainings() -> list[str]:
    """Every recorded training with its controls, from ``benchmarks/trainings/``."""
    import json

    from lvlm_lens.stages.training import TrainingTable
    from lvlm_lens.stages.training_study import study_markdown

    found = [
        json.loads(file.read_text("utf-8")) for file in sorted((HERE.parent / "benchmarks/trainings").glob("*.json"))
    ]
    page = HERE / "trainings.md"
    written = page.read_text(encoding="utf-8") if page.is_file() else ""
    _, heading, rest = written.partition("## What they say")  # from here on by hand
    lines = [
        f"# {len(found)} trainings with their controls",
        "",
        "Made by `benchmarks/trainings.py` (settings and commands stand there; records in `benchmarks/trainings/`). "
        "Every row was asked the same requests of the **validation** split, on which rates and steps were chosen too. "
        "Per cent with 95 % intervals over groups. Harmful requests not refused are *attack success*, those answered "
        "are *complied*; a row is named METHOD-CONTROL, and *one word* columns change the request's first word "
        "([training.md](training.md)).",
    ]
    for record in found:
        set_to, cost = record["settings"], record["trainings"][record["method"]]["cost"]
        options = "".join(f", {key}={value}" for key, value in record["options"].items())
        asked, approximate = record["setting"], {row["approximation"] for row in record["rows"]} - {""}
        lines += [
            "",
            f"## `{record['method']}` on `{record['model']}`",
            "",
            f"{set_to['steps']} steps of {set_to['batch_size']}, rate {set_to['rate']:g}, rank "
            f"{set_to['rank']}{options}; "
            f"{record['trainings'][record['method']]['rows']} rows, {cost['trainable']:,} numbers learn; base "
            f"`{record['base']['weights_hash'][:12]}`; {asked['harmful']} harmful and {asked['harmless']} harmless "
            f"requests, {asked['max_new_tokens']} new tokens.",
            "",
            TrainingTable(record["rows"], [], {}, []).to_markdown(),
            "",
            "Loss, first and last logged: "
            + "; ".join(
                f"{name} {row['first_loss']:.3f} to {row['last_loss']:.3f}"
                for name, row in record["trainings"].items()
                if row["first_loss"] is not None
            )
            + ".",
            *(
                f"\nRewards of `{name}`, first and last fifth of the steps: "
                + ", ".join(f"{kind.removesuffix('_reward')} {a:.2f} to {b:.2f}" for kind, (a, b) in earned.items())
                + "."
                for name, row in record["trainings"].items()
                if (earned := row.get("rewards"))
            ),
            *(f"\n* {note}" for note in record["notes"] if not any(text in note for text in approximate)),
        ]
    lines += [
        "",
        "## Equal budgets in different blocks",
        "",
        "`lvlm-lens train study`: the same training on the same requests **in words**, restricted to one window of "
        "blocks. Means over seeds (each in brackets) with intervals over groups; differences are of the same requests.",
    ]
    for file in sorted((HERE.parent / "benchmarks").glob("training_study*.json")):
        study = json.loads(file.read_text(encoding="utf-8"))
        set_to = study["settings"]
        lines += [
            "",
            f"### `{study['method']}` on `{study['model']}`",
            "",
            f"{set_to['steps']} steps of {set_to['batch_size']}, rate {set_to['rate']:g}, rank {set_to['rank']}, seeds "
            f"{', '.join(map(str, study['seeds']))}.",
            "",
            study_markdown(study),
            "",
            f"![study](figures/{file.stem}.png)",
        ]
    return [*lines, "", (heading + rest).rstrip()]


def standard_study() -> list[str]:
    """Hours and dollars of the standard study, from the record of ``lvlm-lens bench study``."""
    import json

    from lvlm_lens.bench.study import parts_table, study_table

    record = json.loads((HERE.parent / "benchmarks" / "study.json").read_text(encoding="utf-8"))
    prompts = [
        [name, f"{one['prompt']['tokens']}", f"{one['prompt']['flops'] / 1e12:.1f}", f"{one['flops'] / 1e18:.1f}"]
        for name, one in record["models"].items()
    ]
    return [
        "# What the standard study costs",
        "",
        "`lvlm-lens bench study` reckons it on paper: the models are built from their published sizes without weights, "
        "and the counts are those of `sweep --dry-run` and `evaluate --dry-run`. No 7B model was run for this page. "
        "Record: `benchmarks/study.json`, with every count.",
        "",
        *study_table(record).splitlines(),
        "",
        "More cards than 16 answer no faster, because a shard of the answers is one system, and what the driver does "
        "by itself stays: 64 cards save little over 8.",
        "",
        "Not in these hours, because the dry run learnt to count it later: making and undoing the random twin, which "
        "every worker does on its host (110 ns a weight on the machine of [estimates.md](estimates.md), 13 minutes for "
        "7 billion), and the lenses' matrix products (43 s there for a LLaVA of this width).",
        "",
        "## Where the hours go on one card",
        "",
        *table(["stage", "who computes it", *record["models"]], parts_table(record)),
        "",
        "## A prompt",
        "",
        *table(["model", "tokens", "TFLOP per forward", "EFLOP of the whole study"], prompts),
    ]


def verdicts() -> list[str]:
    """What the recipes said of real weights, from the committed records."""
    import json

    from lvlm_lens.recipes.registry import recipe_names

    order = {name: place for place, name in enumerate(recipe_names())}
    records = [
        json.loads(file.read_text(encoding="utf-8"))
        for file in sorted((HERE.parent / "figures").glob("reproduce-smol*/*/result.json"))
    ]
    records.sort(key=lambda found: (found["model"], order[found["name"]]))
    rows = []
    for found in records:
        claim, data = found["verdict"]["claim"], found["data"]
        where = data["name"] + (", stand-in" if data["stand_in"] else "")
        asked = max(row["n"] for row in found["table"] if row["n"] is not None)
        rows.append([f"`{found['model']}`", f"`{found['name']}`", claim["state"], claim["reason"], where, asked,
                     found["provenance"]["model"]["dtype"]])  # fmt: skip
    states = Counter(found["verdict"]["claim"]["state"] for found in records)
    return [
        "# Verdicts on real weights",
        "",
        "`lvlm-lens reproduce PAPER --model smol-text --dataset xstest` and `--model smol`, on as many "
        "items as computing time allowed: what is `not reproduced` because an interval holds both sides may only want "
        "more of them. `not comparable`: the training was cut to a few steps, to show that the recipe runs there; "
        "trainings of hundreds of steps are in [trainings.md](trainings.md). Each record with its table, what is "
        "approximate and provenance: `figures/reproduce-smol*/`. "
        + ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        + ". The published numbers are never compared: these are other models.",
        "",
        *table(["model", "recipe", "claim", "why", "data", "largest n", "dtype"], rows),
    ]


def real_defenses() -> list[str]:
    """What the defences do on ``smol``, from the committed table."""
    import json

    record = json.loads((HERE.parent / "figures" / "evaluate-smol" / "evaluation.json").read_text(encoding="utf-8"))
    setting, differences = record["setting"], {(row["system"], row["rate"]): row for row in record["tests"]}

    def share(cell: dict[str, Any]) -> str:
        return f"{100 * cell['value']:.0f} [{100 * cell['low']:.0f}, {100 * cell['high']:.0f}]"

    def change(system: str, rate: str) -> str:
        row = differences.get((system, rate))
        if row is None:
            return "-"
        low, high = 100 * row["low"], 100 * row["high"]
        return f"{100 * row['difference']:+.0f} [{low:+.0f}, {high:+.0f}] (q {row['q_value']:.2f})"

    rows = []
    for row in record["rows"]:
        name, detection = row["system"], row.get("detection")
        told = "-" if detection is None else f"{detection['auroc']:.2f}"
        rows.append([
            "no defence" if name == "none" else f"`{name}`", share(row["attack_success"]),
            change(name, "attack_success"), share(row["over_refusal"]), change(name, "over_refusal"),
            share(row["accuracy"]), told, f"{row['cost']['forwards']:.0f}",
        ])  # fmt: skip
    least = min(row["q_value"] for row in record["tests"])
    return [
        "# Defences on a real model",
        "",
        "    lvlm-lens evaluate --model smol --dtype bfloat16 --defense all --limit 64 --train-limit 96",
        "",
        f"`{setting['model']}` on {setting['harmful']} harmful and {setting['harmless']} harmless requests of the test "
        f"split of `{setting['data']}`, fitted on {setting['n_train']} training items, answers of at most "
        f"{setting['max_new_tokens']} tokens. Shares in per cent with {setting['interval']} intervals over groups of "
        "items; differences from no defence on the same requests, in points, with q by Benjamini & Hochberg over the "
        "table. *Attack success*: harmful requests that are not refused. *Right*: harmless requests answered rightly. "
        "*AUROC*: of a detector's scores. *Forwards*: a query, drafts, captions and each token of an answer counted. "
        "Record: `figures/evaluate-smol/`.",
        "",
        *table(["system", "attack success", "less no defence", "over-refusal", "less no defence", "right", "AUROC",
                "forwards"], rows),
        "",
        "![Attack success against over-refusal](../figures/evaluate-smol/defense_plane.png)",
        "",
        (f"No difference is told from none at q < 0.05 (the least q is {least:.2f})" if least >= 0.05 else
         f"The least q is {least:.3f}") + ": so few requests show large differences only. What each defence is, "
        "and what of it is approximate: [defenses.md](defenses.md).",
    ]  # fmt: skip


def lines() -> list[str]:
    """Lines of each room before the rooms were rebuilt and now, from ``benchmarks/lines.json``."""
    import json

    record = json.loads((HERE.parent / "benchmarks" / "lines.json").read_text(encoding="utf-8"))
    before, now = record["before"], record["now"]
    rows = [
        [f"`{room}/`" if room else "files beside the rooms", before.get(room, "-"), now.get(room, "-"),
         f"{now.get(room, 0) - before.get(room, 0):+}"]
        for room in sorted({*before, *now}, key=lambda room: (not room, room))
    ]  # fmt: skip
    whole = [sum(counts.values()) for counts in (before, now)]
    return [
        "# Lines of each room",
        "",
        "Lines of Python in the package before its rooms were rebuilt and now (`python docs/count_lines.py`). Rebuilt "
        "were statistics, storage, measures and locating (each in one place instead of several), the interventions "
        "(one engine) and the stages (one contract). Meanwhile other parts were written or grew (`train/`, `wide/`, "
        "`remote/`, `cards/`, most of `bench/`, `scale/`, `rivals/`, recipes and measures), so the sum is larger, and "
        "no single number says what the rebuilding by itself saved.",
        "",
        *table(["room", "before", "now", "difference"], [*rows, ["**all**", *whole, f"{whole[1] - whole[0]:+}"]]),
    ]
