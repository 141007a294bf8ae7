"""Where did the training of smol-text write its refusals?  The run behind docs/adapter_patching.md.

    python -m benchmarks.adapter_patching windows --out runs/adapter
    python -m benchmarks.adapter_patching blocks --out runs/adapter
    python -m benchmarks.adapter_patching train --out runs/adapter --voice VOICE
    python -m benchmarks.adapter_patching windows --adapter sft-shuffled --out runs/adapter
    python -m benchmarks.adapter_patching write --out runs/adapter
    python -m benchmarks.adapter_patching write-mini --out runs/grids

12 pairs: one of each of XSTest's eight types (drawn with seed 0) and the first four of our own requests,
SmolLM2-135M-Instruct, in bfloat16: a grid takes 1 to 2 minutes of one core.  A stopped run continues.  Adapters are the
shipped one and two that ``train`` makes with equal budgets on the frames of ``training/smol``: ``sft`` with their
verdicts, ``sft-shuffled`` with verdicts dealt anew.  ``VOICE`` is what the base itself answers to the harmless frames,
as ``training.smol.voice`` writes it.  ``write-mini`` writes docs/adapter_patching_mini.md of the grids that
``lvlm-lens patch`` made for trainings of benchmarks/trainings.py, one a folder of ``--out`` (command: on the page).
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lvlm_lens import LVLM, load_dataset
from lvlm_lens.causal import AdapterGrid, adapter_grid
from lvlm_lens.data import Dataset, Pair, Sample
from lvlm_lens.inference import false_discovery
from lvlm_lens.models.smol import beyond
from lvlm_lens.models.smol.assemble import TEXT_ADAPTER
from lvlm_lens.plots.adapter import plot_adapter_grid
from lvlm_lens.plots.theme import save_figure
from lvlm_lens.stats.groups import bootstrap_mean, paired_test
from lvlm_lens.train import Settings, make_method, train

EACH_TYPE, OWN = 1, 4
"""Pairs of each of XSTest's types, and of our own requests."""


def pairs() -> list[Pair]:
    """The prompts: harmful and harmless ones that use the same words."""
    by_type: dict[str, list[Pair]] = defaultdict(list)
    for pair in load_dataset("xstest").pairs():
        by_type[pair.clean.category].append(pair)
    chosen = [pair for name in sorted(by_type) for pair in random.Random(0).sample(by_type[name], EACH_TYPE)]
    lines = [text.strip().splitlines() for text in (beyond.HARMFUL, beyond.HARMLESS)]
    for n, (harmful, harmless) in enumerate(list(zip(*lines, strict=True))[:OWN]):
        chosen.append(
            Pair(
                Sample(f"own-{n}-harmful", harmful, group=f"own-{n}", label_joint="unsafe"),
                Sample(f"own-{n}-harmless", harmless, group=f"own-{n}", label_joint="safe"),
                "text",
            )
        )
    return chosen


GRIDS: dict[str, tuple[str | tuple[str, ...], tuple[str, ...], int]] = {
    "windows": ("adapter", ("window",), 0),
    "blocks": ("adapter", ("block",), 1),
    "spans": ("adapter", ("from below",), 0),
    "parts": (("adapter.attn", "adapter.mlp"), ("block",), 0),
}
"""Sites, spans, and random changes a cell."""

ADAPTERS = {
    "shipped": "the adapter that `smol-text` ships with",
    "sft": "40 steps of 10 with the verdicts of the frames",
    "sft-shuffled": "control: the same 40 steps, verdicts dealt anew",
}
TRAINING = Settings(steps=40, rate=1e-3, batch_size=10, rank=8)


def frames(voice: Path) -> Dataset:
    """1,200 requests of ``training/smol``, half of them harmful, none close to a test request; their replies."""
    from training.smol.__main__ import test_requests
    from training.smol.refusals import refusal
    from training.smol.text_data import apart_from, requests
    from training.smol.voice import read_voice

    said, chance = read_voice(voice), random.Random(0)
    made: dict[str, list[Sample]] = {"unsafe": [], "safe": []}
    for n, request in enumerate(one for one in apart_from(requests(), test_requests()) if one.split == "train"):
        if request.reason is None and request.text not in said:
            continue
        label: Any = "safe" if request.reason is None else "unsafe"
        reply = said[request.text].strip() if request.reason is None else refusal(request.reason, chance)
        made[label].append(
            Sample(f"frame-{n}", request.text, group=f"frame-{n}", label_text=label, label_joint=label, reference=reply)
        )
    return Dataset([sample for some in made.values() for sample in some[:600]], "frames")


def train_both(voice: Path, out: Path) -> None:
    """``sft`` and its shuffled control from smol-base, with equal budgets."""
    from dataclasses import replace

    for name, control in (("sft", "none"), ("sft-shuffled", "shuffled")):
        record = train(
            make_method("sft"), "smol-base", frames(voice), replace(TRAINING, control=control), out / name,
            loading={"device": "cpu", "dtype": "bfloat16"},
            progress=lambda done, total, logged: print(done, total, logged.get("loss"), flush=True),
        )  # fmt: skip
        print(name, record["cost"], flush=True)


def section(name: str, grid: AdapterGrid, figure: str, every: int = 5) -> list[str]:
    """One grid: its figure, the exactness lines, the strongest cells, and how far a growing range gets."""
    ends, held = grid.endpoints, grid.refusal.verification
    lines = [
        f"## {name}",
        "",
        f"![{name}](figures/{figure}.png)",
        "",
        f"Exactness: nothing on is the base to {ends['base']:.2g}, all on is the "
        f"trained model to {ends['trained']:.2g} in the logits, against plain forwards of PEFT ({ends['prompts']} "
        f"prompts, they are {ends['apart']:.3g} apart, {ends['tolerance']:.2g} allowed in {grid.meta['dtype']}). "
        f"{held['cells']} cells that skip blocks against whole forwards: largest difference "
        f"{held['max_abs_diff']:.2g}, {held['wrong']} wrong. "
        f"{grid.meta['blocks_run']} of "
        f"{grid.meta['blocks_whole']} blocks were run.",
        "",
        "| prompts | direction | site | span | block | log-odds | share of the way | survives |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    table = grid.summary()
    for (on, direction, site, span), rows in table.groupby(["on", "direction", "site", "span"], sort=False):
        own = grid.refusal if on == "harmful" else grid.over_refusal
        shown = rows if span == "from below" else rows.sort_values("effect", ascending=False).head(5)
        shown = shown[shown["block"] % every == every - 1] if span == "from below" else shown
        for row in shown.itertuples():
            at = own.directions.index(direction), own.sites.index(site), row.block, own.positions.index(span)
            unit = "" if row.unit == "share of the gap" else f" {row.unit}"
            lines.append(
                f"| {on} | {direction} | {site} | {span} | {row.block} | {own.values[at].mean():+.2f} | "
                f"{row.effect:+.2f} [{row.low:+.2f}, {row.high:+.2f}]{unit} | {'yes' if row.survives else 'no'} |"
            )
    best = grid.perception.sort_values("change")
    if len(best):
        low, high = best.iloc[0], best.iloc[-1]
        lines += [
            "",
            "Perception (AUROC of a probe for harm refitted on the last block's output in every cell): changes "
            f"from {low['change']:+.2f} ({low['direction']}, {low['span']} {low['block']}) to "
            f"{high['change']:+.2f} ({high['direction']}, {high['span']} {high['block']}).",
        ]
    lines.append("")
    return lines


def page(grids: dict[tuple[str, str], AdapterGrid]) -> str:
    """docs/adapter_patching.md from finished grids, by adapter and grid."""
    lines = [
        "# Into which blocks the training of `smol-text` wrote its refusals",
        "",
        "Written by `benchmarks/adapter_patching.py`, which holds the commands. SmolLM2-135M-Instruct (30 blocks), "
        "LoRA of rank 8 on every linear map, bfloat16, the same 12 pairs of a harmful and a harmless prompt everywhere "
        "(XSTest and our own). Metric: the refusal log-odds of the first answer token. Intervals redraw pairs; cells "
        "that survive are above 0 at a family-wise 0.05 over the grid, and in the grids of single blocks above a "
        "random change of the same size too. The bars under a figure are the roles of the committed atlas of "
        "`smol-text` (XSTest; it has no pictures, so no semantics).",
        "",
        "| adapter | what | harmful: base | trained | refused: base | trained | harmless: base | trained | refused: "
        "trained |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, what in ADAPTERS.items():
        own = next((grid for (adapter, _), grid in grids.items() if adapter == name), None)
        if own is None:
            continue
        members = own.refusal, own.over_refusal
        means = [_mean(values, grid.groups) for grid in members for values in (grid.corrupted, grid.clean)]
        shares = [f"{(values > 0).mean():.0%}" for grid in members for values in (grid.corrupted, grid.clean)]
        told = [*means[:2], *shares[:2], *means[2:], shares[3]]
        lines.append(f"| `{name}` ({own.record['sha256'][:12]}) | {what} | {' | '.join(told)} |")
    lines.append("")
    for (adapter, name), grid in grids.items():
        lines += section(f"`{adapter}`: {name}", grid, f"adapter_{adapter}_{name}")
    for name in GRIDS:
        if all((adapter, name) in grids for adapter in ADAPTERS):
            lines += beside(name, {adapter: grids[adapter, name] for adapter in ADAPTERS})
    return "\n".join(lines)


def shifts(grid: AdapterGrid, member: str, span: str, direction: str) -> np.ndarray:
    """What a part adds to the refusal log-odds, ``[block, pair]``: on in the base, or missed in the trained model."""
    own = getattr(grid, member)
    values = grid.curve(span, direction, on=member)
    return values - own.corrupted if direction == "denoise" else own.clean - values


def beside(name: str, grids: dict[str, AdapterGrid]) -> list[str]:
    """Harmful prompts against harmless ones by cell, for each adapter, and for two of them against the control."""
    control = grids["sft-shuffled"]
    groups, span = control.refusal.groups, control.refusal.positions[0]
    heads = [f"`{adapter}`" for adapter in grids] + ["`sft` minus control", "`shipped` minus control"]
    rows, found = [], []
    for direction in control.refusal.directions:
        apart = {
            adapter: shifts(grid, "refusal", span, direction) - shifts(grid, "over_refusal", span, direction)
            for adapter, grid in grids.items()
        }
        for block in np.flatnonzero(np.isfinite(apart["sft-shuffled"]).all(1)).tolist():
            here = {adapter: values[block] for adapter, values in apart.items()}
            tests = [paired_test(values, np.zeros_like(values), groups) for values in here.values()]
            tests += [paired_test(here[one], here["sft-shuffled"], groups) for one in ("sft", "shipped")]
            found.append(tests)
            rows.append((direction, block))
    q = np.stack([false_discovery([tests[column].p for tests in found]) for column in range(len(heads))], 1)
    lines = [
        f"## {name}: what each part adds on harmful prompts more than on harmless ones",
        "",
        "Log-odds, on the same pairs; q over all rows of a column (Benjamini and Hochberg). `sft` and the control have "
        "equal budgets, `shipped` had 486 steps of 20.",
        "",
        f"| direction | block | {' | q | '.join(heads)} | q |",
        "| --- " * (2 + 2 * len(heads)) + "|",
    ]
    for (direction, block), tests, adjusted in zip(rows, found, q, strict=True):
        cells = [
            f"{test.value:+.2f} [{test.low:+.2f}, {test.high:+.2f}] | {one:.3f}"
            for test, one in zip(tests, adjusted, strict=True)
        ]
        lines.append(f"| {direction} | {block} | {' | '.join(cells)} |")
    return [*lines, ""]


def write(out: Path, docs: Path) -> None:
    """The page, its figures and the record of finished grids; what is written by hand at its end stays."""
    from lvlm_lens.sweep import SweepResult

    grids = {
        (adapter, name): AdapterGrid.load(out / f"{adapter}-{name}")
        for adapter in ADAPTERS
        for name in GRIDS
        if (out / f"{adapter}-{name}" / "adapter.json").is_file()
    }
    roles = SweepResult.load("figures/smol-text-xstest").roles
    for (adapter, name), grid in grids.items():
        save_figure(plot_adapter_grid(grid, roles), docs / "figures", f"adapter_{adapter}_{name}")
    place = docs / "adapter_patching.md"
    _, heading, rest = (place.read_text(encoding="utf-8") if place.is_file() else "").partition("## What they say")
    place.write_text(page(grids) + (f"\n{heading}{rest}" if heading else ""), encoding="utf-8")
    save_record({f"{adapter}-{name}": grid for (adapter, name), grid in grids.items()}, "adapter_text")


def save_record(grids: dict[str, AdapterGrid], name: str) -> None:
    """The cells of grids with what they were checked by, as ``benchmarks/NAME.json``."""
    record = {
        key: {
            "adapter": dict(grid.record),
            "endpoints": dict(grid.endpoints),
            "verification": dict(grid.refusal.verification),
            "cells": json.loads(grid.summary().to_json(orient="records", double_precision=4)),
        }
        for key, grid in grids.items()
    }
    text = json.dumps(record, default=float) + "\n"
    (Path(__file__).parent / f"{name}.json").write_text(text, encoding="utf-8")


MINI = {
    "spa_vl": "DPO",
    "sft": "supervised fine-tuning",
    "spa_vl-shuffled": "control: DPO, half the pairs turned round",
}
"""Grids of trainings of mini, by the names of their folders."""


def write_mini(out: Path, docs: Path) -> None:
    """The page of the trainings of mini, its figures with the roles of the committed atlas below, and the record."""
    from lvlm_lens.sweep import SweepResult

    grids = {name: AdapterGrid.load(out / name) for name in MINI if (out / name / "adapter.json").is_file()}
    roles = SweepResult.load("figures/mini-mini").roles
    lines = [
        "# Into which blocks trainings of `mini` wrote",
        "",
        "Written by `python -m benchmarks.adapter_patching write-mini` from `lvlm-lens patch --model mini --dataset "
        "mini --split validation --adapter DIR --sites adapter --pairs 24`; the trainings are those of "
        "[trainings.md](trainings.md). Metric: the refusal log-odds of the first answer token, so a method whose "
        "replies begin with reasoning (`msr_align`, `rational`) cannot be read by it. Intervals redraw groups of "
        "pairs; cells that survive are above 0 and above random changes of the same size at a family-wise 0.05 over "
        "the grid. "
        "*Share of the way* is of the way from the base to the trained model, which may lie below the base; where that "
        "way may be none the change itself stands there with its unit. The bars "
        "under each figure are the roles of the atlas of the base.",
        "",
        "| training | what | harmful: base | trained | refused: base | trained | harmless: base | trained | "
        "cells that survive |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, grid in grids.items():
        table = grid.summary()
        refusal, over = grid.refusal, grid.over_refusal
        means = [_mean(values, own.groups) for own in (refusal, over) for values in (own.corrupted, own.clean)]
        refused = [f"{(values > 0).mean():.0%}" for values in (refusal.corrupted, refusal.clean)]
        lines.append(
            f"| `{name}` | {MINI[name]} | {' | '.join([*means[:2], *refused, *means[2:]])} | "
            f"{int(table['survives'].sum())} of {len(table)} |"
        )
    lines.append("")
    for name, grid in grids.items():
        save_figure(plot_adapter_grid(grid, roles), docs / "figures", f"adapter_mini_{name}")
        lines += section(f"`{name}`", grid, f"adapter_mini_{name}", every=3)
    page_file = docs / "adapter_patching_mini.md"
    page_file.write_text("\n".join(lines), encoding="utf-8")
    save_record(grids, "adapter_mini")


def _mean(values: np.ndarray, groups: Sequence[str]) -> str:
    low, high = bootstrap_mean(values[None], groups)
    return f"{values.mean():+.2f} [{low[0]:+.2f}, {high[0]:+.2f}]"


def main() -> None:
    """Run what is left of a grid, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", choices=[*GRIDS, "train", "write", "write-mini"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--adapter", choices=[*ADAPTERS], default="shipped")
    parser.add_argument("--voice", type=Path, help="for train: answers of the base, as training.smol.voice writes them")
    options = parser.parse_args()
    if options.grid == "write":
        return write(options.out, Path("docs"))
    if options.grid == "write-mini":
        return write_mini(options.out, Path("docs"))
    if options.grid == "train":
        return train_both(options.voice, options.out)
    model = LVLM.from_pretrained("smol-base", dtype="bfloat16", check=False)
    sites, spans, null = GRIDS[options.grid]
    adapter = TEXT_ADAPTER if options.adapter == "shipped" else options.out / options.adapter
    grid = adapter_grid(
        model, adapter, pairs(), sites, spans, null=null, batch_size=8,
        out=options.out / f"{options.adapter}-{options.grid}",
        progress=lambda done, total: print(f"{done} of {total} pairs", flush=True),
    )  # fmt: skip
    print(json.dumps(dict(grid.endpoints)), json.dumps(dict(grid.refusal.verification)), flush=True)


if __name__ == "__main__":
    main()
