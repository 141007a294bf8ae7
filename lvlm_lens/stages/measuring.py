"""The measures asked for, their consensus, and whether it is robust.

What a measure found is kept in the run folder (``measures/NAME.safetensors``), so the same folder can be asked for more
measures later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError, near_matches
from ..lens import LVLM
from ..locate.asking import ask_measures, read_roles
from ..locate.consensus import consensus_role, votes_text
from ..locate.locating import Located
from ..measures.draws import save_curves
from ..measures.evidence import Evidence
from ..measures.registry import MEASURES
from ..measures.spec import HEADLINES, ROLE_NAMES, LensSize, Size
from ..measures.study import Study
from ..measures.unembedding import Unembedding
from ..selftest import standing
from ..storage.plain import plain
from .drawing_measures import draw_measures
from .findings import Findings
from .robustness import MOST, robustness_stage
from .stage import Plan, Run, Stage
from .summary import Block, Line
from .work import Work

ROBUSTNESS = "robustness"
"""A name beside the measures': the robustness table."""

Tell = Callable[[str, int, int], None]


def rows_forward(names: Sequence[str], items: int, blocks: int, heads: int) -> int:
    """Rows that the named measures put through the whole model, for an estimate before anything is spent.

    Prompts of an average length are assumed throughout.
    """
    size = Size(items, blocks, heads)
    again = 4 * min(MOST, items) if ROBUSTNESS in names else 0
    return again + sum(MEASURES[name].rows(size) for name in names if name in MEASURES)


def measuring_work(names: Sequence[str], items: int, n_blocks: int, heads: int, kept: int, twin: bool) -> Work:
    """Rows and arithmetic of the named measures over ``kept`` blocks; the twin's part is arithmetic again."""
    asked = [MEASURES[name] for name in names if name in MEASURES]
    once = sum(spec.probes for spec in asked if spec.cost != "free") * kept
    return Work(
        rows=rows_forward(names, items, n_blocks, heads), probes_plain=once * (1.3 if twin else 1.0),
        figures=sum(name in ("head_attribution", "knockout_flow", ROBUSTNESS) for name in names),
    )  # fmt: skip


def lens_work(names: Sequence[str], size: LensSize) -> Work:
    """Matrix products of the lenses among the named measures, over the vocabulary."""
    found = [MEASURES[name].products(size) for name in names if name in MEASURES]
    return Work(products=sum(one.single for one in found), products_double=sum(one.double for one in found))


def measure_stage(
    study: Study, names: Sequence[str], out: Path | None = None, progress: Tell | None = None
) -> Findings:
    """Compute (or read) the measures, then the consensus of each role, then the robustness table where asked for.

    Args:
        study: the model on its data.
        names: from :func:`parse_measures`.
        out: folder where findings are kept; ``None`` keeps nothing.
        progress: progress callback.
    """
    progress = progress or (lambda stage, done, total: None)
    wanted = [name for name in names if name in MEASURES]
    measured, reasons = ask_measures(study, wanted, out, lambda done, total: progress("measuring", done, total))
    if out is not None:
        save_curves(out / "roles.safetensors", dict(study.located.curves))
    standings = {name: standing(name) for name in wanted}
    consensus = {}
    for role in ROLE_NAMES:
        curves = {name: found.curve for name, found in measured.items() if MEASURES[name].role == role}
        silent = [name for name in curves if not MEASURES[name].votes or standings[name] == "missed"]
        if curves and study.located.roles[role].measurable:
            consensus[role] = consensus_role(role, curves, (), silent)
    robustness: dict[str, Any] = {"done": False, "reason": "not asked for"}
    if ROBUSTNESS in names:
        try:
            robustness = robustness_stage(study)
        except DataError as error:
            robustness = {"done": False, "reason": str(error)}
    return Findings(measured, reasons, read_roles(study, measured), standings, consensus, robustness)


def parse_measures(text: str) -> list[str]:
    """``default``, ``all``, or names with commas, to names; ``robustness`` is one of them.

    Raises :class:`UsageError` with near matches.
    """
    words = [word.strip() for word in str(text).split(",") if word.strip()]
    if not words:
        raise UsageError("no measures were named; write default, all, or names with commas")
    known = [*MEASURES, ROBUSTNESS]
    chosen = set(HEADLINES.values())  # located anyway; without them a consensus would have no base
    for word in words:
        if word == "all":
            chosen |= set(known)
        elif word == "default":
            chosen |= {name for name, spec in MEASURES.items() if spec.default}
        elif word in known:
            chosen.add(word)
        else:
            raise UsageError(
                f"no measure {word!r}{near_matches(word, [*known, 'all', 'default'])}; measures: {', '.join(known)}"
            )
    return [name for name in known if name in chosen]


def make_study(
    model: LVLM,
    evidence: Evidence,
    located: Located,
    twin: Evidence | None,
    lens_of_twin: Unembedding | None,
    settings: Mapping[str, Any],
    out: Path | None = None,
    progress: Tell | None = None,
) -> Study:
    """A study with a sweep's settings (positions, folds, permutations, replicates, seed, batch_size)."""
    kept = ("positions", "folds", "permutations", "replicates", "seed", "batch_size")
    chosen = {name: settings[name] for name in kept}
    return Study(
        model, evidence, located, twin, lens_of_twin, out=out,
        progress=progress or (lambda stage, done, total: None), **chosen,
    )  # fmt: skip


class Measuring(Stage):
    """The measures, kept one file each in ``measures/``; continued at the measure where it was stopped."""

    name = "measures"
    parts = ("measures", "consensus", "robustness")

    def cost(self, plan: Plan) -> Mapping[str, Work]:
        """Forwards and arithmetic of the measures asked for."""
        names, anatomy = parse_measures(plan.settings.measures), plan.model.anatomy
        items, twin = len(plan.data), plan.settings.twin
        work = measuring_work(names, items, plan.model.n_blocks, anatomy.n_heads, plan.kept, twin)
        lens = lens_work(names, LensSize(items, plan.kept, anatomy.d_model, anatomy.vocab_size, twin))
        return {"measures": work + lens}

    def run(self, run: Run) -> Mapping[str, Any]:
        """Measure, or read what was measured."""
        read, kept = run.found["reading"], run.folder / "measures"
        settings = {**run.settings.to_dict(), "batch_size": run.batch_size, "seed": run.seed}
        study = make_study(
            run.model, read.evidence, run.found["locate"], read.twin, read.lens_of_twin, settings, kept, run.progress
        )
        findings = measure_stage(study, parse_measures(run.settings.measures), kept, run.progress)
        run.found[self.name] = findings
        run.curves |= findings.curves()
        return plain(findings.to_dict())

    def figures(self, run: Run) -> list[dict[str, str]]:
        """Head map, knockout flow, robustness, where they were measured."""
        return draw_measures(run.folder, run.model.n_blocks, run.found[self.name])

    def summary(self, record: Mapping[str, Any]) -> list[Block]:
        """Each role's consensus, and what could not be measured."""
        lines: list[Block] = [
            Line(f"Consensus: {consensus_line(role, found)}") for role, found in record["consensus"].items()
        ]
        missing = {name: row["reason"] for name, row in record["measures"].items() if not row["done"]}
        return [*lines, *(Line(f"Not measured: {name}: {reason}") for name, reason in missing.items())]


def consensus_line(role: str, found: Mapping[str, Any]) -> str:
    """One line on a role's consensus."""
    if not found["found"]:
        return f"{role} {votes_text(found)}"
    return (
        f"{role} from block {found['onset']} [{found['onset_low']}, {found['onset_high']}] "
        f"({votes_text(found)}, onsets {found['spread'][0]}-{found['spread'][1]})"
    )
