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
from ..locate.curve import Curve
from ..locate.evidence import Evidence
from ..locate.locating import Located, harm_labels, perceived_note
from ..models.lvlm import LVLM
from .measuring import HEADLINES, Findings

Tell = Callable[[str, int, int], None]
"""Called with (stage, done, in all)."""


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
    from ..plots.consensus import plot_consensus_atlas
    from ..plots.curves import plot_curve
    from ..plots.interactive import interactive_atlas, save_interactive
    from ..plots.quadrants import plot_quadrants
    from ..plots.strip import choose_blocks, plot_strip, two_dimensions
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
            "Where safety perception, semantic understanding and expression stand over the depth of the model.",
            lambda: plot_consensus_atlas(
                {role: findings.of_role(role) for role in findings.consensus},
                findings.consensus,
                n_blocks,
                f"Safety atlas of {model.name}",
                caveat,
                HEADLINES,
                findings.standing,
            ),
        )
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
            lambda: plot_strip(
                {b: two_dimensions(used.block(b)) for b in choose_blocks(evidence.blocks)},
                harm_labels(used.samples),
                aurocs,
            ),
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
            shown = sorted({0, grid.blocks[len(grid.blocks) // 4], grid.blocks[len(grid.blocks) // 2]})
            chosen = [(a, b, effect[[grid.blocks.index(k) for k in shown]], text) for a, b, effect, text in pictures]
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
