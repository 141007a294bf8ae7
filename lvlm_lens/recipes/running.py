"""Run recipes into a folder: one folder a paper, a page and a table each, and a summary of all.

The same command again goes on where it stopped: a recipe with a ``result.json`` is done, a recipe that failed or was
killed runs again, and its answers are read back from its ledgers.  A folder of another model, data set, limit or
seed is refused with the difference.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.cards import DatasetCard
from ..data.registry import DATA_ROOT, card, root_of
from ..errors import DataError, LensError
from ..evaluate.judges import EndpointJudge, LocalJudge, TextModel
from ..lens import LVLM
from ..plots.comparison import plot_comparison
from ..plots.theme import save_figure
from ..progress import stage
from ..provenance import environment
from ..storage.commit import write_atomic
from ..storage.runfolder import RunFolder
from .context import Context
from .page import recipe_page, summary_page
from .recipe import CLAIM_STATES, Recipe, RecipeResult
from .registry import recipes

SCHEMA = "lvlm-lens recipes 1"
RESULT, FAILED = "result.json", "failed.json"


@dataclass(frozen=True)
class Request:
    """The setting of a run; see :class:`~lvlm_lens.recipes.context.Context`."""

    model: str = "mini"
    root: str | None = None
    dataset: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    seed: int = 0
    judge: str | None = None
    judge_model: str = ""
    device: str | None = None
    loading: Mapping[str, Any] = field(default_factory=dict)  # further arguments of LVLM.from_pretrained
    batch_size: int = 32
    max_new_tokens: int = 32


@dataclass(frozen=True)
class Report:
    """What a run gave: results in order, failures by recipe, the folder."""

    folder: Path
    results: tuple[dict[str, Any], ...]
    failed: tuple[dict[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with a count of each state."""
        states = [found["verdict"]["claim"]["state"] for found in self.results]
        return {
            "schema": SCHEMA,
            "counts": {**{state: states.count(state) for state in CLAIM_STATES}, "failed": len(self.failed)},
            "recipes": list(self.results),
            "failed": list(self.failed),
        }


def judge_of(request: Request) -> TextModel | EndpointJudge | None:
    """The judge named by the request: an endpoint's address, or a model to load."""
    if request.judge is None:
        return None
    if request.judge.startswith(("http://", "https://")):
        return EndpointJudge(request.judge, request.judge_model, with_images=True)
    model = LVLM.from_pretrained(request.judge, device=request.device)
    return LocalJudge(model, with_images=model.takes_images)


def reproduce(
    chosen: Sequence[Recipe],
    request: Request,
    folder: Path,
    command: list[str] | None = None,
    model: LVLM | None = None,
) -> Report:
    """Run recipes; with several, one that fails is counted and the others go on.

    Args:
        chosen: recipes, in order.
        request: the setting.
        folder: of the run; see the module's first lines.
        command: the command line, for the record.
        model: an already loaded model in place of ``request.model``.

    Raises:
        LensError: as the only recipe raises it; for several recipes only what concerns all of them (model, folder).
    """
    runner = Runner(request, folder, command, model)
    results: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for recipe in chosen:
        with stage(recipe.name):
            found, reason = runner.run(recipe, alone=len(chosen) == 1)
        if found is not None:
            results.append(found)
        else:
            failed.append({"name": recipe.name, "error": reason})
    report = Report(folder, tuple(results), tuple(failed))
    runner.home.write_json("reproduced.json", report.to_dict())
    write_atomic(folder / "reproduced.md", summary_page(report.results, report.failed))
    return report


class Runner:
    """A model and a run folder that is its own, for one recipe after another.

    The arguments are those of :func:`reproduce`.

    Raises:
        LensError: the model cannot be loaded, or the folder belongs to another run.
    """

    def __init__(
        self, request: Request, folder: Path, command: list[str] | None = None, model: LVLM | None = None
    ) -> None:
        self.request, self.command = request, command
        self.model = model or LVLM.from_pretrained(request.model, device=request.device, **request.loading)
        self.weights = self.model.weights_hash()
        self.home = RunFolder(folder)
        settings = {
            "model": self.model.name,
            "root": request.root,
            "dataset": request.dataset,
            "columns": dict(request.columns),
            "limit": request.limit,
            "seed": request.seed,
            "judge": [request.judge, request.judge_model],
            "max_new_tokens": request.max_new_tokens,
        }
        identity = {"schema": SCHEMA, "settings": settings, "weights_hash": self.weights}
        self.home.claim({**identity, "dtype": str(self.model.dtype)})
        self.judge = judge_of(request)

    def run(self, recipe: Recipe, alone: bool = True) -> tuple[dict[str, Any] | None, str]:
        """The result of a recipe, read back where there is one; or ``None`` and why it failed.

        ``alone`` raises the error instead; else it is written down, since the other papers do not depend on this one.
        """
        place = RunFolder(self.home.path / recipe.name)
        found, request = place.read_json(RESULT), self.request
        if found is None:
            context = Context(
                self.model,
                root=request.root,
                dataset=request.dataset,
                columns=request.columns,
                limit=request.limit,
                seed=request.seed,
                judge=self.judge,
                out=place.path,
                batch_size=request.batch_size,
                max_new_tokens=request.max_new_tokens,
                weights=self.weights,
            )
            try:
                found = _run(recipe, context, place, self.command)
            except Exception as error:  # written down and told at the end: the other papers do not depend on this one
                if alone:
                    raise
                kind = "" if isinstance(error, LensError) else f"{type(error).__name__}: "
                place.write_json(FAILED, {"name": recipe.name, "error": f"{kind}{error}"})
                return None, f"{kind}{error}"
        (place.path / FAILED).unlink(missing_ok=True)
        return found, ""


def _run(recipe: Recipe, context: Context, place: RunFolder, command: list[str] | None) -> dict[str, Any]:
    """One recipe: measure, draw, write; the result file comes last, so that it stands for all."""
    start = time.perf_counter()
    result: RecipeResult = recipe.run(context)
    found = result.to_dict()
    short = [row | {"where": row["where"] if row["n"] is None else result.model} for row in found["table"]]
    figures = {**result.outcome.figures, "comparison": plot_comparison(short, recipe.title)}
    found["figures"] = [file for name, figure in figures.items() for file in save_figure(figure, place.path, name)]
    found["seconds"] = round(time.perf_counter() - start, 2)
    found["provenance"] = {"model": context.model.provenance(), **environment(context.seed, command)}
    place.write_json("table.json", found["table"])
    write_atomic(place.path / "table.md", recipe_page(found))
    place.write_json(RESULT, found)
    return found


def state_of(folder: Path, name: str) -> str:
    """``not run``, ``failed: ...``, or the two verdicts of the run in ``folder``."""
    for file, words in ((RESULT, ""), (FAILED, "failed: ")):
        path = folder / name / file
        if not path.is_file():
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if words:
                return words + str(found["error"])
            verdict = found["verdict"]
            return f"claim {verdict['claim']['state']}; numbers {verdict['numbers']['state']}"
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"unreadable {file}: {error}"
    return "not run"


def data_of(recipe: Recipe, root: str | None) -> dict[str, str]:
    """Each set of a recipe: ``there``, or what is missing."""
    return {use.name: _there(card(use.name), root) for use in recipe.sets}


def _there(found: DatasetCard, root: str | None) -> str:
    if root is None and DATA_ROOT not in os.environ:
        return "no root" if found.embedded is None else f"in the package: --dataset {found.name}"
    try:
        missing = found.missing(root_of(found, root))
    except DataError as error:
        return str(error)
    return f"missing {', '.join(missing)}" if missing else "there"


def listing(folder: Path, root: str | None) -> list[dict[str, Any]]:
    """One row per recipe: name, title, source, claim, sets and whether they are there, state in ``folder``."""
    return [
        {
            "name": recipe.name,
            "title": recipe.title,
            "source": recipe.source,
            "claim": recipe.claim,
            "published_numbers": len(recipe.published),
            "data": data_of(recipe, root),
            "stand_in": recipe.stand_in,
            "state": state_of(folder, recipe.name),
        }
        for recipe in recipes()
    ]
