"""Write the tables of ``docs/`` from the registries, so that the pages cannot say anything else than the code.

python docs/generate.py            # writes them
python docs/generate.py --check    # names the pages that differ; exit code 1 where one does
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARKS = (
    "`[own]` is this project's own definition, `[code]` was read in the authors' code, `[abs]` in the abstract only, "
    "`[3P]` in other people's reimplementation."
)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        lines.append("| " + " | ".join(str(value).replace("|", "\\|").replace("\n", " ") for value in row) + " |")
    return lines


def measures() -> list[str]:
    """Every registered measure."""
    from lvlm_lens.measures.registry import MEASURES
    from lvlm_lens.measures.spec import Size
    from lvlm_lens.selftest import standing

    size = Size(items=200, blocks=32, heads=32)
    rows = [
        [
            f"`{name}`", (spec.role or "description only") + ("" if spec.votes else " (no vote)"), spec.cost,
            f"{spec.rows(size):,}", spec.what,
            "[not testable](selftest.md)" if spec.untested else standing(name), spec.source,
        ]
        for name, spec in MEASURES.items()
    ]  # fmt: skip
    return [
        f"# {len(rows)} measures",
        "",
        "A measure without a vote is drawn and not counted in the consensus. *On known models*: whether it reaches its "
        "targets in `lvlm-lens selftest`, on models whose answer is known by construction. Cost: `free` reads what the "
        "sweep has read anyway, `cheap` computes on it, `forward` and `edits` run the model again. *Rows run*: prompts "
        f"that it puts through a model of {size.blocks} blocks with {size.heads} heads, of {size.items} items. {MARKS}",
        "",
        *table(["measure", "role", "cost", "rows run", "what it is", "on known models", "source"], rows),
    ]


def defenses() -> list[str]:
    """Every registered defence and detector."""
    from lvlm_lens.defenses.base import Detector
    from lvlm_lens.defenses.registry import DEFENSES

    rows = []
    for name, kind in DEFENSES.items():
        state = f"approximation: {kind.approximation}" if kind.approximation else "as published"
        what = "detector" if issubclass(kind, Detector) else "answers"
        rows.append([f"`{name}`", what, ", ".join(sorted(kind.needs)) or "-", kind.source, state])
    return [
        f"# {len(rows)} defences and detectors",
        "",
        "`lvlm-lens evaluate --defense NAME[,NAME]` runs them beside the undefended model.",
        "",
        *table(["defence", "kind", "needs", "source", "state"], rows),
    ]


def datasets() -> list[str]:
    """Every published format."""
    from lvlm_lens.data.registry import FORMATS, card

    rows = []
    for name in FORMATS:
        about = card(name)
        counts = ", ".join(f"{count:,} {key}" for key, count in list(about.counts.items())[:2]) or "-"
        there = "in the package" if about.embedded else about.source
        rows.append([f"`{name}`", about.title, counts, there, about.licence])
    return [
        f"# {len(rows)} published data sets",
        "",
        "`lvlm-lens datasets NAME` says what to download and where to put it. `own schema`: the files are not public, "
        "so the format is ours and named as such (`--template FILE` writes an empty one).",
        "",
        *table(["name", "set", "published records", "format known from", "licence"], rows),
        "",
        "## The same request in words and in a picture",
        "",
        "Any set of texts becomes such pairs, which `patch_grid` takes:",
        "",
        "```python",
        "from lvlm_lens import load_dataset",
        "from lvlm_lens.data.matching import form_pairs",
        "from lvlm_lens.data.typography import to_typographic",
        "",
        'shown = to_typographic(load_dataset("xstest"), layout="figstep", forms=("picture",))',
        "pairs = form_pairs(shown)",
        "```",
    ]


def recipes() -> list[str]:
    """Every recipe."""
    from lvlm_lens.recipes.registry import recipes as every

    rows = [
        [
            f"`{r.name}`", f"{r.title}, {r.source}", len(r.published) or "none", ", ".join(use.name for use in r.sets),
            r.claim,
        ]
        for r in every()
    ]  # fmt: skip
    return [
        f"# {len(rows)} recipes",
        "",
        "A recipe judges twice. The **claim** is a direction: *reproduced* where the whole 95 % interval (bootstrap "
        "over groups) lies on the paper's side, *not reproduced* where it does not, *not comparable* where it could "
        "not be measured. The **numbers** are compared only on the model they were published for, on the published "
        "files, whole, scored as published. Without `--root` a part of the embedded set stands in for them.",
        "",
        *table(["recipe", "paper", "published numbers known", "data", "claim"], rows),
    ]


def families() -> list[str]:
    """Every family with a row in the table."""
    from lvlm_lens.models.anatomy import FAMILIES
    from lvlm_lens.models.checkpoints import KNOWN_BY

    rows = [
        [f"`{name}`", f"`{KNOWN_BY[name]}`" if name in KNOWN_BY else "-", ", ".join(sorted(row.flow)) or "plain"]
        for name, row in FAMILIES.items()
    ]
    return [
        f"# {len(rows)} families of models",
        "",
        "Each has a row in `lvlm_lens/models/anatomy.py` and a tiny real model that `lvlm-lens models --check` holds "
        "against plain forwards. A family without a row is discovered from its structure, checked on load, and refused "
        "with the reason where it fails. What the words of the last column mean stands in that file.",
        "",
        *table(["family", "for example", "what is particular about its forward"], rows),
    ]


def commands() -> list[str]:
    """Every command with its options, as its own help shows them."""
    from lvlm_lens.cli import COMMANDS, build_parser

    rows = {name: _option_rows(build_parser(name), name) for name in COMMANDS}
    counted = Counter(row for own in rows.values() for row in own)
    lines = [
        f"# {len(COMMANDS)} commands",
        "",
        "`lvlm-lens COMMAND --help` shows the same, whole. One output folder is one run: the same command again "
        "continues it. Options that four commands or more share stand once, at the end.",
    ]
    for name, about in COMMANDS.items():
        lines += ["", f"## `lvlm-lens {name}`", "", f"{about.help[0].upper()}{about.help[1:]}.".replace("?.", "?")]
        lines += ["", "```text", about.example, "```"]
        own = [row for row in rows[name] if counted[row] < 4]
        lines += ["", *table(["option", "what it is"], own)] if own else []
    shared = [row for row in dict.fromkeys(row for own in rows.values() for row in own) if counted[row] >= 4]
    return [*lines, "", "## Options that they share", "", *table(["option", "what it is"], shared)]


def _option_rows(parser: ArgumentParser, name: str) -> list[tuple[str, str]]:
    own = next(action for action in parser._actions if action.dest == "command").choices[name]  # type: ignore[index]
    return [
        (f"`{', '.join(action.option_strings) or action.metavar or action.dest}`", action.help or "")
        for action in own._actions
        if action.dest != "help"
    ]


def training_methods() -> list[str]:
    """Every registered training method."""
    from lvlm_lens.train.registry import METHODS, method_class

    rows = []
    for name in METHODS:
        kind = method_class(name)
        options = ", ".join(f"`{key}={value!r}`" for key, value in kind().get_params(deep=False).items())
        differs = kind.approximation or "as published, as far as read"
        rows.append([f"`{name}`", kind.title, kind.source, f"{kind.rate:g}", options or "-", differs])
    return [
        f"# {len(rows)} training methods",
        "",
        "`lvlm-lens train NAME`; options of a method are given as `--option NAME=VALUE`. What they share (audits, "
        "controls, folder, resuming) is in [training.md](training.md).",
        "",
        *table(["method", "what", "source", "rate", "options", "differs from the published one"], rows),
    ]


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
            *(f"\n* {note}" for note in record["notes"] if not any(text in note for text in approximate)),
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
        *table(["model", "tokens", "TFLOP a forward", "EFLOP of the whole study"], prompts),
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
        "more of them. Each record with its table, approximations and provenance: `figures/reproduce-smol*/`. "
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


PAGES = {"measures": measures, "defenses": defenses, "datasets": datasets, "recipes": recipes, "families": families,
         "commands": commands, "training_methods": training_methods, "wide": wide, "selftest": selftest,
         "science": science,
         "trainings": trainings, "standard_study": standard_study, "verdicts": verdicts,
         "real_defenses": real_defenses}  # fmt: skip


def main(words: Sequence[str]) -> int:
    """Write every page, or with ``--check`` name those that differ."""
    stale = []
    for name, make in PAGES.items():
        text = "\n".join(make()) + "\n"
        page = HERE / f"{name}.md"
        if "--check" in words:
            if not page.is_file() or page.read_text(encoding="utf-8") != text:
                stale.append(page.name)
        else:
            page.write_text(text, encoding="utf-8")
    if stale:
        print(f"out of date: {', '.join(stale)}; run `python docs/generate.py`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
