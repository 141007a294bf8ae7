"""The measures asked for, their consensus, and whether it is robust.

The registry of all measures stands here, above the rooms that hold them.  What a measure found is kept in the run
folder as soon as it is there (``measures/NAME.safetensors``: curves with their draws, tables), so a run that was
stopped goes on at the measure where it stopped, and the same folder can be asked for more measures later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..causal.measures import ITEMS
from ..causal.measures import MEASURES as EDITING
from ..errors import DataError, LensError, UsageError, near_matches
from ..lens import LVLM
from ..locate.consensus import ConsensusRole, consensus_role, votes_text
from ..locate.curve import Curve
from ..locate.draws import load_measured, save_curves, save_measured
from ..locate.evidence import Evidence
from ..locate.locating import ROLE_NAMES, Located
from ..locate.measures import FEW
from ..locate.measures import MEASURES as READING
from ..locate.roles import Role, find_role
from ..locate.study import COSTS, Measured, MeasureSpec, Study, measure, unembedding_of
from ..locate.tuned_lens import CHATS
from ..locate.unembedding import Unembedding
from ..plugins import announced
from ..selftest import standing
from ..storage.plain import plain
from .drawing_measures import draw_measures
from .robustness import MOST, robustness_stage
from .stage import Plan, Run, Stage
from .summary import Block, Line
from .work import Work

MEASURES: Mapping[str, MeasureSpec] = {
    spec.name: spec
    for role in (*ROLE_NAMES, None)
    for spec in sorted(
        (*READING, *EDITING, *announced("lvlm_lens.measures").values()), key=lambda spec: list(COSTS).index(spec.cost)
    )
    if spec.role == role
}
"""Every measure by name, role by role, those that need the fewest forwards first."""

ROBUSTNESS = "robustness"
"""A name beside the measures': the robustness table."""

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Findings:
    """What the stage found.

    Attributes:
        measured: by name, what could be measured; reasons: by name, why not.
        roles: each voting or drawn measure's own reading of its role; standing: ``reached``, ``missed`` or
            ``untested`` on models whose answer is known.
        consensus: by role; robustness: tables, or why there are none.
    """

    measured: Mapping[str, Measured]
    reasons: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, Role] = field(default_factory=dict)
    standing: Mapping[str, str] = field(default_factory=dict)
    consensus: Mapping[str, ConsensusRole] = field(default_factory=dict)
    robustness: Mapping[str, Any] = field(default_factory=dict)

    def of_role(self, role: str) -> dict[str, Curve]:
        """Curves of the measures that speak for a role."""
        return {name: found.curve for name, found in self.measured.items() if MEASURES[name].role == role}

    def curves(self) -> dict[str, Curve]:
        """Every curve by its own name, those of the three headline measures left out (the sweep has them)."""
        out = {}
        for name, found in self.measured.items():
            if name not in HEADLINES.values():
                out[name] = found.curve
            out.update(found.others)
        return out

    def to_dict(self) -> dict[str, Any]:
        """``measures``, ``consensus`` and ``robustness`` for ``result.json``; curves stand under their names there."""
        rows: dict[str, Any] = {}
        headline = {measure: curve for curve, measure in HEADLINES.items()}
        for name in (*self.measured, *self.reasons):
            spec = MEASURES[name]
            row: dict[str, Any] = {
                "done": name in self.measured, "role": spec.role, "cost": spec.cost, "votes": spec.votes,
                "what": spec.what, "source": spec.source, "standing": self.standing.get(name, "untested"),
            }  # fmt: skip
            if name in self.measured:
                found = self.measured[name]
                row |= {"curve": headline.get(name, name), "others": list(found.others), "tables": dict(found.tables)}
                row["finding"] = self.roles[name].to_dict() if name in self.roles else None
            else:
                row["reason"] = self.reasons[name]
            rows[name] = row
        consensus = {role: found.to_dict() for role, found in self.consensus.items()}
        return {"measures": rows, "consensus": consensus, "robustness": dict(self.robustness)}


HEADLINES = {"perception": "linear_probe", "semantics": "joint_probe", "expression": "lens_log_odds"}
"""The sweep's own curve of each role, and the measure it is."""


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


def rows_forward(names: Sequence[str], items: int, blocks: int, heads: int) -> int:
    """Rows that the named measures put through the whole model, for an estimate before anything is spent.

    The answer of a tuned lens's chat counts as one row more; prompts of an average length are assumed throughout.
    """
    few, half = min(ITEMS, items), min(256, items // 2)
    positions, deep = 3, -int(-0.8 * blocks // 1)
    cost = {
        "shared_semantics": 2 * min(FEW, items),
        "modality_cosine": 2 * min(FEW, items),
        "lens_readability": few,
        "tuned_lens": 3 * min(CHATS, items),
        "head_attribution": few * (1 + heads * (blocks + 1) // 2),  # each head's run begins at its own block
        "knockout_flow": few * (1 + 3 * blocks),
        "scaled_blocks": few * 2 * blocks,
        # each candidate: ablated on both halves and added on one; the last position is ablated at every depth
        "refusal_direction": half + few * 2 + (3 * positions * deep + blocks + 1 - deep) * few // 2,
        ROBUSTNESS: 4 * min(MOST, items),
    }
    return sum(cost.get(name, 0) for name in names)


_ARITHMETIC = {"mean_difference": 0.6, "angular_gap": 1.0, "refusal_lens": 0.6, "trajectory": 0.6,
               "difference_consistency": 0.3, "label_cka": 1.0, "concept_probe": 2.0}  # fmt: skip
"""What a measure of numbers already read costs, in probes of a block; the others are taken as half a probe."""


def measuring_work(names: Sequence[str], items: int, n_blocks: int, heads: int, kept: int, twin: bool) -> Work:
    """Rows and arithmetic of the named measures over ``kept`` blocks; the twin's part is arithmetic again."""
    cheap = [name for name in names if name in MEASURES and MEASURES[name].cost != "free"]
    once = sum(_ARITHMETIC.get(name, 0.5) for name in cheap) * kept
    return Work(
        rows=rows_forward(names, items, n_blocks, heads), probes=once * (1.3 if twin else 1.0),
        figures=sum(name in ("head_attribution", "knockout_flow", ROBUSTNESS) for name in names),
    )  # fmt: skip


def twin_lens(twin: LVLM) -> Unembedding | None:
    """The twin's own final norm and head, or ``None`` for a family whose head is more than a matrix."""
    try:
        return unembedding_of(twin, keep=True)
    except LensError:
        return None


def measure_stage(study: Study, names: Sequence[str], folder: Path | None = None, tell: Tell | None = None) -> Findings:
    """Compute (or read) the measures, then the consensus of each role, then the robustness table where asked for.

    Args:
        study: the model on its data.
        names: from :func:`parse_measures`.
        folder: where findings are kept; ``None`` keeps nothing.
        tell: progress callback.
    """
    tell = tell or (lambda stage, done, total: None)
    measured: dict[str, Measured] = {}
    reasons: dict[str, str] = {}
    wanted = [name for name in names if name in MEASURES]
    for number, name in enumerate(wanted):
        spec = MEASURES[name]
        file = None if folder is None or spec.cost == "free" else folder / f"{name}.safetensors"
        if file is not None and file.is_file():
            measured[name] = load_measured(file)
        else:
            try:
                measured[name] = measure(spec, study)
            except LensError as error:
                reasons[name] = str(error)
            else:
                if file is not None:
                    save_measured(file, measured[name])
        tell("measuring", number + 1, len(wanted))
    if folder is not None:
        save_curves(folder / "roles.safetensors", dict(study.located.curves))
    standings = {name: standing(name) for name in wanted}
    roles = {}
    for name, found in measured.items():
        spec = MEASURES[name]
        if spec.role is not None:
            expected = tuple(key for key in spec.expected if study.pictures or key != "image_only")
            located = study.located.roles[spec.role]
            roles[name] = find_role(spec.role, found.curve, expected) if located.measurable else located
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
    return Findings(measured, reasons, roles, standings, consensus, robustness)


def make_study(
    model: LVLM,
    evidence: Evidence,
    located: Located,
    twin: Evidence | None,
    lens_of_twin: Unembedding | None,
    settings: Mapping[str, Any],
    folder: Path | None = None,
    tell: Tell | None = None,
) -> Study:
    """A study with a sweep's settings (positions, folds, permutations, replicates, seed, batch_size)."""
    kept = ("positions", "folds", "permutations", "replicates", "seed", "batch_size")
    chosen = {name: settings[name] for name in kept}
    return Study(
        model, evidence, located, twin, lens_of_twin, folder=folder,
        tell=tell or (lambda stage, done, total: None), **chosen,
    )  # fmt: skip


class Measuring(Stage):
    """The measures, kept one file each in ``measures/``; continued at the measure where it was stopped."""

    name = "measures"
    parts = ("measures", "consensus", "robustness")

    def cost(self, plan: Plan) -> Mapping[str, Work]:
        """Forwards and arithmetic of the measures asked for."""
        names, anatomy = parse_measures(plan.settings.measures), plan.model.anatomy
        work = measuring_work(
            names, len(plan.data), plan.model.n_blocks, anatomy.n_heads, plan.kept, plan.settings.twin
        )
        return {"measures": work}

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
