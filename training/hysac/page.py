"""docs/hysac.md: the table and the figure of the small experiment, written from its results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lvlm_lens.plots.theme import PAGE, new_figure, save_figure, theme
from lvlm_lens.train.hysac.experiment import DRAWINGS, ROWS, STEPS, TUNED, Estimate, table
from lvlm_lens.train.hysac.world import SPLITS, World

SHOWN = (
    "AUROC of the radius, text",
    "AUROC of the radius, image",
    "safe text to picture R@1",
    "unsafe text to picture: safe half",
    "unsafe text to picture: own safe one R@1",
    "unsafe text to picture: same activity",
)
MOVED = (
    "{}: unsafe texts moved",
    "{}: safe texts moved",
    "{}: unsafe text to picture: safe half",
    "{}: unsafe text to picture: same thing",
    "{}: safe text to picture R@1",
)
NAMES = {
    "matched": "1 matched, Euclidean", "four": "2 four terms, Euclidean", "hyperbolic": "3 four terms, hyperbolic",
    "hysac": "4 HySAC", "swapped": "5 HySAC, swapped", "random": "6 HySAC, random", "probe": "7 linear probe",
}  # fmt: skip


def write_page(seeds: Sequence[Mapping[str, Any]], docs: Path, record: Path) -> None:
    """Write ``hysac.md`` and its figure into ``docs``, and the numbers of both as JSON into the file ``record``."""
    found = table(seeds)
    save_figure(draw(found, seeds), docs / "figures", "hysac")
    (docs / "hysac.md").write_text("\n".join(lines(found, seeds)) + "\n", encoding="utf-8")
    numbers = {
        "command": "python -m training.hysac OUT",
        "seeds": len(seeds),
        "steps": {"scratch": STEPS, "tuned": TUNED, "drawings": DRAWINGS},
        "rows": {
            row: {split: {name: asdict(cell) for name, cell in cells.items()} for split, cells in splits.items()}
            for row, splits in found.items()
        },
        "atlas": [seed["atlas"] for seed in seeds],
        "curvature": [seed["curvature"] for seed in seeds],
    }
    record.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def _at(found: Mapping[str, Any], row: str, split: str, name: str) -> Estimate | None:
    cells = found[row][split]
    return cells.get(name) or cells.get(name.replace("radius", "score"))  # type: ignore[no-any-return]


def lines(found: Mapping[str, Any], seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """The page, line by line."""
    world = World.draw()
    counts = ", ".join(f"{split} {len(world.quadruplets(split))}" for split in SPLITS)
    made = [
        "# HySAC's parts on a small world",
        "",
        f"Written by `python -m training.hysac OUT`, every number in `benchmarks/hysac.json`. {len(seeds)} seeds; each "
        f"trains a CLIP of 3 + 3 blocks of width 64 from scratch ({STEPS} steps of 64 pairs) and tunes every row from "
        f"it ({TUNED} steps of 16 quadruplets, each drawn {DRAWINGS} times). Quadruplets to test on: {counts}. Means "
        "over seeds with 95 % intervals that redraw things, the same ones in every seed. The budget is minutes of one "
        "core: a row that shows nothing here may show something with more, and no published number is at stake.",
        "",
        "![rows and blocks](figures/hysac.png)",
        "",
    ]
    for split in SPLITS:
        made += [f"## {split}", "", "| row | " + " | ".join(SHOWN) + " |", "| --- |" + " --- |" * len(SHOWN)]
        for row, name in NAMES.items():
            cells = [_at(found, row, split, metric) for metric in SHOWN]
            made.append(f"| {name} | " + " | ".join("-" if cell is None else str(cell) for cell in cells) + " |")
        made.append("")
    made += ["## Traversal of unsafe texts (row 4)", "", "| split | mode | moved (unsafe) | moved (safe) | safe half | "
             "same thing | safe text R@1 |", "| --- |" + " --- |" * 6]  # fmt: skip
    for split in SPLITS:
        plain = [_at(found, "hysac", split, name.removeprefix("{}: ")) for name in MOVED[2:]]
        made.append(f"| {split} | none | - | - | " + " | ".join(map(str, plain)) + " |")
        for mode in ("paper", "fixed", "at the bound"):
            cells = [_at(found, "hysac", split, name.format(mode)) for name in MOVED]
            made.append(f"| {split} | {mode} | " + " | ".join(map(str, cells)) + " |")
    made += [
        "",
        "## Both towers, block by block",
        "",
        'AUROC of a linear probe for "unsafe" on the pooled state of each block, over folds of whole things; mean over '
        "seeds (smallest, largest).",
        "",
        "| model | tower | block 0 | block 1 | block 2 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in ("clip", *ROWS):
        for tower in ("text", "image"):
            values = np.array([seed["atlas"][row][tower] for seed in seeds])  # [seed, block]
            told = [f"{v.mean():.2f} ({v.min():.2f}, {v.max():.2f})" for v in values.T]
            made.append(f"| {NAMES.get(row, 'CLIP before')} | {tower} | " + " | ".join(told) + " |")
    return made


def draw(found: Mapping[str, Any], seeds: Sequence[Mapping[str, Any]]) -> Any:
    """AUROC of the radius by row and split at the left, probes by block before and after at the right."""
    with theme():
        figure = new_figure(PAGE, 4.2)
        panels = figure.subplots(2, 2, width_ratios=[2, 1])
        for line, kind in zip(panels, ("text", "image"), strict=True):
            for at, split in enumerate(SPLITS):
                for place, row in enumerate(NAMES):
                    value = _at(found, row, split, f"AUROC of the radius, {kind}")
                    assert value is not None
                    x = place + 0.17 * (at - 1.5)
                    line[0].errorbar(
                        x, value.value, [[max(0.0, value.value - value.low)], [max(0.0, value.high - value.value)]],
                        fmt="osD^"[at], ms=3, lw=0.8, color=f"C{at}", label=split if place == 0 else None,
                    )  # fmt: skip
            line[0].axhline(0.5, color="#BBBBBB", lw=0.7)
            line[0].set_xticks(range(len(NAMES)), [name.replace(", ", ",\n") for name in NAMES.values()], fontsize=5.5)
            line[0].set_ylabel(f"AUROC of the radius, {kind}\n(row 7: of the probe)", fontsize=6.5)
            for row, style in (("clip", ":"), ("four", "--"), ("hysac", "-")):
                values = np.array([seed["atlas"][row][kind] for seed in seeds])
                line[1].plot(
                    range(values.shape[1]), values.mean(0), style, color="black", label=NAMES.get(row, "before")
                )
            line[1].axhline(0.5, color="#BBBBBB", lw=0.7)
            line[1].set_xticks(range(3))
            line[1].set_xlabel(f"block of the {kind} tower")
            line[1].set_ylabel("AUROC of a probe", fontsize=6.5)
        panels[0, 0].legend(ncols=4, loc="upper left", fontsize=6)
        panels[0, 1].legend(fontsize=6)
    return figure
