"""Last stage: every figure of a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..causal import PatchGrid
from ..data import Dataset
from ..defenses.sasa_report import SASAReport
from ..evaluate.evaluation import EvaluationResult
from ..lens import LVLM
from ..locate.curve import Curve
from ..locate.evidence import Evidence
from ..locate.locating import Located, harm_labels, perceived_note
from .measuring import HEADLINES, Findings
from .work import Work

Tell = Callable[[str, int, int], None]
"""Called with (stage, done, in all)."""


def drawing_work(semantics: bool, patched: bool, sasa: bool, defenses: bool) -> Work:
    """Figures of a run, the interactive ones counted as one more each."""
    return Work(figures=2 + 2 + int(semantics) + 3 + 4 * int(patched) + 3 * int(sasa) + int(defenses))


def draw_figures(
    folder: Path,
    model: LVLM,
    evidence: Evidence,
    located: Located,
    backbone: dict[str, Any] | None,
    tell: Tell,
    findings: Findings,
) -> list[dict[str, str]]:
    """Draw and write every figure; returns name, files and caption of each."""
    from ..plots.atlas import plot_atlas
    from ..plots.consensus import plot_consensus_atlas
    from ..plots.curves import plot_curve
    from ..plots.interactive import interactive_atlas, save_interactive
    from ..plots.quadrants import plot_quadrants
    from ..plots.strip import plot_strip
    from ..plots.theme import ROLE_TITLES, save_figure
    from ..plots.trajectory import plot_trajectory

    n_blocks = model.n_blocks
    known = harm_labels(evidence.samples) >= 0
    used = evidence.rows(known)
    perception = located.curves["perception"]
    aurocs = dict(zip(perception.blocks, perception.value.tolist(), strict=True))
    missing = sorted({name for role in located.roles for name in role.missing})
    caveat = f"not compared with: {', '.join(missing)}" if missing else ""
    reader = None if backbone is None else "backbone" if "backbone" in backbone else "lvlm_in_words"
    rows = None if backbone is None or reader is None else backbone[reader]["quadrants"]
    others = {}
    if backbone is not None and reader is not None:
        others["in words, to the backbone" if reader == "backbone" else "in words"] = Curve.from_dict(
            backbone[reader]["curve"]
        )
    note = perceived_note(located.roles.perception)
    drawn: list[tuple[str, str, Callable[[], Any]]] = [
        (
            "atlas",
            "Where safety perception, semantic understanding and expression stand over the depth of the model, above "
            "the strongest baseline of each block and the twin with shuffled weights.",
            lambda: plot_atlas(located.curves, located.roles, n_blocks, f"Safety atlas of {model.name}", caveat),
        ),
        (
            "consensus",
            "Every measure of a role as a share of its own height above what it has to beat; how far they agree.",
            lambda: plot_consensus_atlas(
                {role: findings.of_role(role) for role in findings.consensus},
                findings.consensus,
                n_blocks,
                f"Measures of {model.name} beside each other",
                caveat,
                HEADLINES,
                findings.standing,
            ),
        ),
    ]
    for role in located.roles:
        if role.name in located.curves:
            caption = f"{role.name.capitalize()} by block with its null and baselines. {role}"
            missed = findings.standing.get(HEADLINES[role.name]) == "missed"
            if missed:
                caption += " Its measure misses its targets on constructed models (×)."
            drawn.append(
                (
                    role.name,
                    caption,
                    partial(
                        plot_curve,
                        located.curves[role.name],
                        n_blocks,
                        role,
                        f"{ROLE_TITLES[role.name]} ×" if missed else "",
                        others=others if role.name == "perception" else {},
                    ),
                )
            )
    drawn += [
        (
            "quadrants",
            "Perceived and refused by quadrant, and the same items said in words to the language-only backbone."
            + (f" Perceived: {note}." if note else ""),
            lambda: plot_quadrants(
                located.quadrants,
                rows,
                "Perceived (below what a role needs: perception not found), and refused" if note else "",
                reader or "",
            ),
        ),
        (
            "strip",
            "Representations of harmful and harmless items, block by block.",
            lambda: plot_strip(_planes(used), harm_labels(used.samples), aurocs),
        ),
        (
            "trajectory",
            "Refusal log-odds of the logit lens for refused and answered items, and agreement with the final token.",
            lambda: plot_trajectory(located.trajectories, located.curves["lens_agreement"], n_blocks),
        ),
    ]
    made = []
    for number, (name, caption, draw) in enumerate(drawn):
        tell("drawing figures", number, len(drawn))
        png, svg = save_figure(draw(), folder, name)
        made.append({"name": name, "png": png, "svg": svg, "caption": caption})
    page = interactive_atlas(located.curves, located.roles, f"Safety atlas of {model.name}")
    made[0]["html"] = save_interactive(page, folder, "atlas")
    tell("drawing figures", len(drawn), len(drawn))
    return made


def _planes(used: Evidence) -> dict[int, Any]:
    """Planes of the blocks that are shown, turned to fit one another."""
    from ..plots.strip import aligned_planes, choose_blocks

    shown = choose_blocks(used.blocks)
    return dict(zip(shown, aligned_planes([used.block(block) for block in shown]), strict=True))


def draw_causal(
    folder: Path, model: LVLM, data: Dataset, grid: PatchGrid | None, report: SASAReport | None, tell: Tell
) -> list[dict[str, str]]:
    """Figures of the causal stage and of SASA, where they were done."""
    from ..plots.interactive import save_interactive
    from ..plots.patching import plot_patch_grid, plot_patches_on_picture
    from ..plots.patching_interactive import interactive_patch_grid
    from ..plots.sasa import plot_controls, plot_gain_map, plot_label_efficiency
    from ..plots.theme import save_figure
    from .patching import picture_effects

    drawn: list[tuple[str, str, Any]] = []
    if grid is not None:
        caption = (
            f"Patching what enters each block in {len(grid.pairs)} matched pairs, by block and position, both ways; "
            "greyed cells do not survive the false-discovery control."
        )
        drawn.append(("patching", caption, plot_patch_grid(grid, model.n_blocks)))
        pictures = picture_effects(model, data, grid, folder / "patch_tokens", tell)
        if pictures:
            places = telling_blocks([effect for _, _, effect, _ in pictures])
            shown = [grid.blocks[at] for at in places]
            chosen = [(a, b, effect[places], text) for a, b, effect, text in pictures]
            caption = "Single image tokens patched before a block (denoising), laid over the pictures of three pairs."
            drawn.append(("patching_picture", caption, plot_patches_on_picture(chosen, shown)))
    if report is not None:
        drawn += [
            ("sasa_map", report.verdict, plot_gain_map(report.map["cells"], model.n_blocks)),
            ("sasa_controls", "SASA beside its controls; dashed: the same probe without projection.",
             plot_controls(report.controls)),
            ("sasa_labels", "AUROC by training size with and without projection.",
             plot_label_efficiency(report.label_efficiency)),
        ]  # fmt: skip
    made = []
    for name, caption, figure in drawn:
        png, svg = save_figure(figure, folder, name)
        made.append({"name": name, "png": png, "svg": svg, "caption": caption})
    if grid is not None:
        made[0]["html"] = save_interactive(interactive_patch_grid(grid), folder, "patching")
    return made


def telling_blocks(effects: list[Any]) -> list[int]:
    """Places of three blocks that show how the picture's part ends: the first, the last at which single tokens still
    carry a tenth of their largest mean effect, and the one between.

    Args:
        effects: ``[block, side, side]`` a pair.
    """
    import numpy as np

    by_block = np.mean([np.abs(effect).mean((1, 2)) for effect in effects], axis=0)
    last = int(np.flatnonzero(by_block >= 0.1 * by_block.max())[-1])
    last = min(max(last, 2), len(by_block) - 1)
    return sorted({0, last // 2, last})


def draw_defenses(folder: Path, table: EvaluationResult | None) -> list[dict[str, str]]:
    """The defence plane, where a table was made."""
    from ..plots.defenses import defense_plane
    from ..plots.theme import save_figure

    if table is None:
        return []
    png, svg = save_figure(defense_plane(table.plane()), folder, "defense_plane")
    caption = (
        f"Attack success against over-refusal of {len(table.rows)} systems on {table.setting['n_test']} requests, "
        "with 95 % intervals; the size of a mark is its cost in forwards a query."
    )
    return [{"name": "defense_plane", "png": png, "svg": svg, "caption": caption}]
