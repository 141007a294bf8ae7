"""Does SASA's projection make danger easier to see on this model, and what do a few defences change?"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..config import SweepConfig
from ..data import Dataset
from ..defenses import SASA, Defense, FirstTokenProbe, SafetyPrompt
from ..defenses.contest import FOLDS
from ..defenses.sasa_map import CONTROL_NAMES
from ..defenses.sasa_report import FALSE_POSITIVES, QUICK_SUBSETS, SIZES, SASAReport, sasa_report
from ..defenses.tuned import INNER
from ..errors import DataError, ModelError, RunFolderError, UsageError, context
from ..evaluate.evaluation import EvaluationResult, evaluate
from ..lens import LVLM
from ..locate.roles import LayerRoles
from ..progress import stage
from ..storage.plain import plain
from ..storage.runfolder import RunFolder
from .drawing_causal import draw_defenses, draw_sasa
from .stage import Plan, Run, Stage
from .summary import Block, Line, percent, table
from .work import Work, batches_of

Tell = Callable[[str, int, int], None]


def defence_stage(
    model: LVLM, data: Dataset, roles: LayerRoles, seed: int, progress: Tell, batch_size: int, folder: Path
) -> tuple[dict[str, Any], SASAReport | None]:
    """SASA's quick report on the labelled items; a plain summary with the verdict, beside the report.

    Blocks come from the located roles where perception begins before semantics, else from the map.  Passes are kept in
    ``folder`` batch by batch while the report is made, and the report when it is done.
    """
    kept = RunFolder(folder).read_json("report.json")
    if kept is not None and kept["roles"] == roles.to_dict():
        return {"done": True, **kept["report"]}, SASAReport.from_dict(kept["report"])
    try:
        with stage("SASA"):
            report = sasa_report(
                model, _labelled(data), roles=roles, quick=True, batch_size=batch_size, seed=seed,
                out=folder / "passes",
            )  # fmt: skip
    except (DataError, ModelError, UsageError) as error:  # too few groups, or a family without a state to project
        return {"done": False, "reason": str(error)}, None
    RunFolder(folder).write_json("report.json", {"roles": roles.to_dict(), "report": report.to_dict()})
    shutil.rmtree(folder / "passes", ignore_errors=True)
    return {"done": True, **report.to_dict()}, report


def sasa_work(items: int, in_words: bool, blocks: int, vocabulary: int, width: int) -> Work:
    """Passes of the quick report: the map, the controls, the contest, harm in words, the refusal log-odds by block.

    Every table of features (cells of the map, controls, the plain pass, subsets of the training part, SASA's and its
    rivals' candidates in the contest, every single block read through the head) is turned once and gives one probe,
    in the contest one in each of its splits.
    """
    train = test = min(64, items // 2)
    chosen = [round(k * (blocks - 1) / 3) for k in range(4)]  # candidate blocks of the quick map
    later = {s: (blocks - 1 - s) / blocks for s in chosen}  # the share of the blocks that a second pass runs
    cells = [(s, f) for s in chosen for f in chosen if s < f]
    second = max(later.values())  # where the blocks are not known beforehand
    rows = (train + test) * (1 + sum(later[s] for s, _ in cells))
    rows += (train + test) * (1 + len(CONTROL_NAMES) * second)
    rows += (train + test) * (1 + sum(later[s] for s, _ in cells))  # the same cells run again without projection
    rows += train * (1 + second) if in_words else 0
    rows += 16 * (2 + second) + 32 * (1 + 3 * second)
    subsets = 1 + QUICK_SUBSETS * sum(size < train for size in SIZES)
    once = 1 + len(cells) + len(CONTROL_NAMES) + 3 + 2 * subsets + 2
    candidates = 2 * len(cells) + 1 + blocks
    guards = len(FALSE_POSITIVES) * (1 + INNER)
    return Work(
        rows=rows, wide_fits=2 + guards, tables=once + candidates, tuned=once + FOLDS * candidates,
        products=float(blocks * (train + test) * vocabulary * width),
    )  # fmt: skip


TRAINING, ASKED, LONGEST = 80, 40, 12
"""Samples to fit on, requests to answer, tokens of an answer: a first look; ``lvlm-lens evaluate`` is the real one."""


def table_stage(
    model: LVLM, data: Dataset, report: SASAReport | None, seed: int, progress: Tell, batch_size: int, folder: Path
) -> tuple[dict[str, Any], EvaluationResult | None]:
    """A small defence table: a safety prompt, a probe on the first token, and SASA's guard where it was measured.

    Answers are kept in ``folder``; those of other settings (SASA at other blocks, say) are asked for again.
    """
    defenses: list[Defense] = [SafetyPrompt(), FirstTokenProbe(batch_size=batch_size)]
    if report is not None:
        blocks = {f"{name}_block": report.setting[f"{name}_block"] for name in ("safety", "fused")}
        defenses.append(SASA(**blocks, batch_size=batch_size))

    def ask() -> EvaluationResult:
        return evaluate(
            model, _labelled(data), defenses, limit=ASKED, train_limit=TRAINING, max_new_tokens=LONGEST,
            batch_size=batch_size, out=folder, seed=seed,
        )  # fmt: skip

    try:
        with stage("defences"):
            try:
                result = ask()
            except RunFolderError:
                shutil.rmtree(folder)
                result = ask()
    except (DataError, ModelError, UsageError) as error:  # no request of one label, a folder of another run
        return {"done": False, "reason": str(error)}, None
    answered = {row["system"] for row in result.rows}
    left_out = [
        note for one in defenses if one.name not in answered for note in result.notes if note.startswith(one.name)
    ]
    return {"done": True, "left_out": left_out, **result.to_dict()}, result


def table_work(items: int, sasa: bool, batch_size: int) -> Work:
    """Fitting and asking the undefended model, the safety prompt, the probe, and SASA's guard."""
    train, asked = min(TRAINING, items // 2), min(ASKED, items // 2)
    second = 1.0  # a second pass at most
    rows = asked + 1.5 * asked + (train + 3 * asked)  # none; a longer prompt; fit, score, answer, score for detection
    rows += (train + 2 * asked) * (1 + second) + asked if sasa else 0
    systems = 3 + int(sasa)
    return Work(rows=rows, steps=systems * LONGEST * batches_of(asked, batch_size), wide_fits=1 + int(sasa))


def _labelled(data: Dataset) -> Dataset:
    return data.filter(lambda sample: sample.harmful is not None)


class Projecting(Stage):
    """SASA's quick report; its passes are kept batch by batch, the report when it is done."""

    name = "sasa"
    parts = ("sasa",)

    def asked(self, settings: SweepConfig) -> bool:
        """Where SASA was not left out."""
        return settings.sasa

    def cost(self, plan: Plan) -> Mapping[str, Work]:
        """Passes of the map, the controls and the rest."""
        anatomy = plan.model.anatomy
        work = sasa_work(
            len(plan.labelled), plan.in_words > 0, plan.model.n_blocks, anatomy.vocab_size, anatomy.d_model
        )
        return {"SASA": work, "figures": Work(figures=3)}

    def run(self, run: Run) -> Mapping[str, Any]:
        """Report, or read the report."""
        roles = run.found["locate"].roles
        with context("SASA"):
            found, report = defence_stage(
                run.model, run.read, roles, run.seed, run.progress, run.batch_size, run.folder / "sasa"
            )
        run.found[self.name] = report
        return {"sasa": plain(found)}

    def figures(self, run: Run) -> list[dict[str, str]]:
        """Map, controls, label efficiency."""
        report = run.found.get(self.name)
        return [] if report is None else draw_sasa(run.folder, run.model.n_blocks, report)

    def summary(self, record: Mapping[str, Any]) -> list[Block]:
        """The verdict."""
        sasa = record["sasa"]
        return [Line(f"SASA: {sasa['verdict'] if sasa['done'] else 'not done: ' + sasa['reason']}")]


class Defending(Stage):
    """The small defence table; answers are kept as they are given."""

    name = "defenses"
    parts = ("defenses",)

    def asked(self, settings: SweepConfig) -> bool:
        """Where defences were not left out."""
        return settings.defenses

    def cost(self, plan: Plan) -> Mapping[str, Work]:
        """Fitting and asking."""
        work = table_work(len(plan.labelled), plan.settings.sasa, plan.settings.batch_size)
        return {"defences": work, "figures": Work(figures=1)}

    def run(self, run: Run) -> Mapping[str, Any]:
        """Ask, or read the answers."""
        report, kept = run.found.get("sasa"), run.folder / "defenses"
        with context("defences"):
            found, made = table_stage(run.model, run.read, report, run.seed, run.progress, run.batch_size, kept)
        run.found[self.name] = made
        return {"defenses": plain(found)}

    def figures(self, run: Run) -> list[dict[str, str]]:
        """Attack success against over-refusal."""
        return draw_defenses(run.folder, run.found.get(self.name))

    def summary(self, record: Mapping[str, Any]) -> list[Block]:
        """The table."""
        found = record["defenses"]
        if not found["done"]:
            return [Line(f"Defences: not done: {found['reason']}")]
        setting = found["setting"]
        asked = f"{setting['harmful']} harmful and {setting['harmless']} harmless requests"
        columns = ("system", "not refused", "complied", "over-refusal", "forwards")
        rows = []
        for row in found["rows"]:
            forwards = row["cost"].get("forwards")
            shares = (percent(row[key]) for key in ("attack_success", "complied", "over_refusal"))
            rows.append((row["system"], *shares, "-" if forwards is None else f"{forwards:.1f}"))
        left_out = [Line(f"Defences: {reason}") for reason in found.get("left_out", ())]  # older records lack it
        return [table(f"Defences, a first look on {asked}", columns, rows, numbers=columns[1:]), *left_out]
