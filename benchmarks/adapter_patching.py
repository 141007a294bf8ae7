"""Where did the training of smol-text write its refusals?  The run behind docs/adapter_patching.md.

    python -m benchmarks.adapter_patching spans --out runs/adapter
    python -m benchmarks.adapter_patching windows --out runs/adapter
    python -m benchmarks.adapter_patching parts --out runs/adapter
    python -m benchmarks.adapter_patching null --out runs/adapter
    python -m benchmarks.adapter_patching write --out runs/adapter
    python -m benchmarks.adapter_patching write-mini --out runs/grids

8 pairs of XSTest (one a type, drawn with seed 0) and the first 4 pairs of our own requests, SmolLM2-135M-Instruct with
the shipped text adapter, in bfloat16: about a minute of one core each.  A stopped run continues.  ``write-mini`` writes
docs/adapter_patching_mini.md of the grids that ``lvlm-lens patch`` made for trainings of benchmarks/trainings.py, one a
folder of ``--out`` (the command is on the page).
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lvlm_lens import LVLM, load_dataset
from lvlm_lens.causal import AdapterGrid, adapter_grid
from lvlm_lens.data import Pair, Sample
from lvlm_lens.models.smol import beyond
from lvlm_lens.models.smol.assemble import TEXT_ADAPTER
from lvlm_lens.plots.adapter import plot_adapter_grid
from lvlm_lens.plots.theme import save_figure
from lvlm_lens.stats.groups import bootstrap_mean


def pairs() -> list[Pair]:
    """The prompts: harmful and harmless ones that use the same words."""
    by_type: dict[str, list[Pair]] = defaultdict(list)
    for pair in load_dataset("xstest").pairs():
        by_type[pair.clean.category].append(pair)
    chosen = [pair for name in sorted(by_type) for pair in random.Random(0).sample(by_type[name], 1)]
    lines = [text.strip().splitlines() for text in (beyond.HARMFUL, beyond.HARMLESS)]
    for n, (harmful, harmless) in enumerate(list(zip(*lines, strict=True))[:4]):
        chosen.append(
            Pair(
                Sample(f"own-{n}-harmful", harmful, group=f"own-{n}", label_joint="unsafe"),
                Sample(f"own-{n}-harmless", harmless, group=f"own-{n}", label_joint="safe"),
                "text",
            )
        )
    return chosen


GRIDS: dict[str, tuple[str | tuple[str, ...], tuple[str, ...], int]] = {
    "spans": ("adapter", ("block", "from below"), 0),
    "windows": ("adapter", ("window",), 0),
    "parts": (("adapter.attn", "adapter.mlp"), ("block",), 0),
    "null": ("adapter", ("block",), 1),
}
"""Sites, spans, and random changes a cell."""


def section(name: str, grid: AdapterGrid, figure: str, every: int = 5) -> list[str]:
    """One grid: its figure, the exactness lines, the strongest cells, and how far a growing range gets."""
    ends, held = grid.endpoints, grid.refusal.verification
    lines = [
        f"## {name}",
        "",
        f"![{name}](figures/{figure}.png)",
        "",
        f"Exactness: nothing on is the base to {ends['base']:.2g}, all on is the trained model to "
        f"{ends['trained']:.2g} in the logits, against plain forwards of PEFT ({ends['prompts']} prompts, they are "
        f"{ends['apart']:.3g} apart, {ends['tolerance']:.2g} allowed in {grid.meta['dtype']}). {held['cells']} cells "
        f"that skip blocks against whole forwards: largest difference {held['max_abs_diff']:.2g}, "
        f"{held['wrong']} wrong. "
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


def page(grids: dict[str, AdapterGrid]) -> str:
    """docs/adapter_patching.md from finished grids."""
    first = next(iter(grids.values()))
    refusal, over = first.refusal, first.over_refusal
    lines = [
        "# Into which blocks the training of `smol-text` wrote its refusals",
        "",
        "Written by `benchmarks/adapter_patching.py`, which holds the commands. SmolLM2-135M-Instruct (30 blocks) with "
        f"the shipped text adapter (sha256 {first.record['sha256'][:12]}, LoRA of rank 8 on every linear map), "
        f"bfloat16, {len(refusal.pairs)} pairs of a harmful and a harmless prompt (XSTest and our own). Metric: the "
        "refusal log-odds "
        "of the first answer token. Intervals redraw pairs; cells that survive are above 0 at a family-wise 0.05 over "
        "the grid.",
        "",
        f"Harmful prompts: {refusal.corrupted.mean():+.2f} without the adapter, {refusal.clean.mean():+.2f} with it. "
        f"Harmless prompts: {over.corrupted.mean():+.2f} and {over.clean.mean():+.2f}.",
        "",
    ]
    for name, grid in grids.items():
        lines += section(name, grid, f"adapter_{name}")
    return "\n".join(lines)


def write(out: Path, docs: Path) -> None:
    """The page and its figures, of the grids that are finished; what is written by hand at its end stays."""
    grids = {name: AdapterGrid.load(out / name) for name in GRIDS if (out / name / "adapter.json").is_file()}
    for name, grid in grids.items():
        save_figure(plot_adapter_grid(grid), docs / "figures", f"adapter_{name}")
    place = docs / "adapter_patching.md"
    _, heading, rest = (place.read_text(encoding="utf-8") if place.is_file() else "").partition("## What they say")
    place.write_text(page(grids) + (f"\n{heading}{rest}" if heading else ""), encoding="utf-8")


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
    record = {}
    for name, grid in grids.items():
        table = grid.summary()
        refusal, over = grid.refusal, grid.over_refusal
        means = [_mean(values, own.groups) for own in (refusal, over) for values in (own.corrupted, own.clean)]
        refused = [f"{(values > 0).mean():.0%}" for values in (refusal.corrupted, refusal.clean)]
        lines.append(
            f"| `{name}` | {MINI[name]} | {' | '.join([*means[:2], *refused, *means[2:]])} | "
            f"{int(table['survives'].sum())} of {len(table)} |"
        )
        record[name] = {
            "adapter": dict(grid.record),
            "endpoints": dict(grid.endpoints),
            "verification": dict(refusal.verification),
            "cells": json.loads(table.to_json(orient="records", double_precision=4)),
        }
    lines.append("")
    for name, grid in grids.items():
        save_figure(plot_adapter_grid(grid, roles), docs / "figures", f"adapter_mini_{name}")
        lines += section(f"`{name}`", grid, f"adapter_mini_{name}", every=3)
    page_file = docs / "adapter_patching_mini.md"
    page_file.write_text("\n".join(lines), encoding="utf-8")
    text = json.dumps(record, default=float) + "\n"
    (Path(__file__).parent / "adapter_mini.json").write_text(text, encoding="utf-8")


def _mean(values: np.ndarray, groups: Sequence[str]) -> str:
    low, high = bootstrap_mean(values[None], groups)
    return f"{values.mean():+.2f} [{low[0]:+.2f}, {high[0]:+.2f}]"


def main() -> None:
    """Run what is left of a grid, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", choices=[*GRIDS, "write", "write-mini"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, default=TEXT_ADAPTER)
    options = parser.parse_args()
    if options.grid == "write":
        return write(options.out, Path("docs"))
    if options.grid == "write-mini":
        return write_mini(options.out, Path("docs"))
    model = LVLM.from_pretrained("smol-base", dtype="bfloat16", check=False)
    sites, spans, null = GRIDS[options.grid]
    grid = adapter_grid(
        model, options.adapter, pairs(), sites, spans, null=null, batch_size=6, out=options.out / options.grid,
        progress=lambda done, total: print(f"{done} of {total} pairs", flush=True),
    )  # fmt: skip
    print(json.dumps(dict(grid.endpoints)), json.dumps(dict(grid.refusal.verification)), flush=True)


if __name__ == "__main__":
    main()
