"""Figures of the roles, the quadrants, the planes and the trajectory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..lens import LVLM
from ..locate.locating import Located, perceived_note
from ..measures.evidence import Evidence
from ..measures.items import harm_labels
from ..measures.spec import HEADLINES
from ..stats.curve import Curve
from .findings import Findings
from .work import Work

Tell = Callable[[str, int, int], None]
"""Called with (stage, done, in all)."""


def drawing_work(semantics: bool) -> Work:
    """Figures of the roles, the interactive one counted as one more."""
    return Work(figures=2 + 2 + int(semantics) + 3)


def draw_figures(
    folder: Path,
    model: LVLM,
    evidence: Evidence,
    located: Located,
    backbone: dict[str, Any] | None,
    progress: Tell,
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
                "" if located.roles.perception.found else "Refused (perceived: not counted, perception not found)",
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
        progress("drawing figures", number, len(drawn))
        png, svg = save_figure(draw(), folder, name)
        made.append({"name": name, "png": png, "svg": svg, "caption": caption})
    page = interactive_atlas(located.curves, located.roles, f"Safety atlas of {model.name}")
    made[0]["html"] = save_interactive(page, folder, "atlas")
    progress("drawing figures", len(drawn), len(drawn))
    return made


def _planes(used: Evidence) -> dict[int, Any]:
    """Planes of the blocks that are shown, turned to fit one another."""
    from ..plots.strip import aligned_planes, choose_blocks

    shown = choose_blocks(used.blocks)
    return dict(zip(shown, aligned_planes([used.block(block) for block in shown]), strict=True))
