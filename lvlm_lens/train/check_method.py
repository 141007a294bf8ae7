"""One battery of checks for every training method: what holds for all of them, whatever they train.

``check_method(method, model, data, folder)`` raises :class:`AssertionError` naming the rule that was broken.  A user's
own method is checked with it, as the package's are.  It trains a few steps, three times.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sklearn.base import clone

from ..data import Dataset
from ..errors import DataError, RunFolderError
from .adapter_method import AdapterMethod
from .folder import CHECKPOINTS, RECORD, ROWS, SCHEMA, read_training
from .method import Job, Method, Settings


class Stopped(Exception):
    """The battery's own kill."""


def check_method(
    method: Method, model: str, data: Dataset, folder: Path, settings: Settings | None = None, **loading: Any
) -> dict[str, Any]:
    """Run the battery; returns the record of the uninterrupted training.

    Args:
        method: as constructed.
        model: name of a small base it can train.
        data: a few samples with all that the method needs.
        folder: an empty folder; three trainings are written below it.
        settings: few steps; by default 4, with a checkpoint every 2.
        loading: of the base.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    kind = type(method).__name__
    short = settings or Settings(steps=4, save_every=2, batch_size=2, rank=2)
    _check_card(method, kind)
    stored = {key: repr(value) for key, value in method.get_params(deep=False).items()}
    job = Job(model, data, short, folder / "whole", loading)

    plan = clone(method).plan(job)
    assert plan.steps == short.steps and plan.flops > 0 and plan.trainable > 0, f"{kind}: the plan is empty"
    assert plan.peak_bytes > 0 and plan.seconds > 0, f"{kind}: the plan tells no memory or time"
    assert not (folder / "whole").exists(), f"{kind}: planning wrote into the folder"

    told: list[tuple[int, int]] = []
    job.progress = lambda done, total, logged: told.append((done, total))
    record = clone(method).train(job)
    after = {key: repr(value) for key, value in method.get_params(deep=False).items()}
    assert after == stored, f"{kind}: training changed a parameter"
    assert told and told[-1] == (short.steps, short.steps), f"{kind}: progress was not told to the end"
    _check_folder(kind, folder / "whole", record, short)

    again = clone(method).train(Job(model, data, short, folder / "whole", loading))
    assert again == record, f"{kind}: a finished folder was trained again"
    other = Job(model, data, replace(short, seed=short.seed + 1), folder / "whole", loading)
    _refuses(lambda: clone(method).train(other), RunFolderError, f"{kind}: another seed was taken into the same folder")
    empty = Job(model, Dataset([], data.name), short, folder / "empty", loading)
    _refuses(lambda: clone(method).train(empty), DataError, f"{kind}: an empty data set was accepted")

    same = _weights(clone(method).train(Job(model, data, short, folder / "same", loading)))
    assert same == _weights(record), f"{kind}: the same training gave other weights"
    cut = Job(model, data, short, folder / "stopped", loading)

    def stop(done: int, total: int, logged: Any) -> None:
        if done > short.save_every:  # after the first checkpoint, within the next stretch
            raise Stopped

    cut.progress = stop
    try:
        clone(method).train(cut)
    except Stopped:
        pass
    else:
        raise AssertionError(f"{kind}: progress is not told at every step")
    assert not (folder / "stopped" / RECORD).exists(), f"{kind}: a stopped training is marked as finished"
    resumed = clone(method).train(Job(model, data, short, folder / "stopped", loading))
    assert _weights(resumed) == _weights(record), f"{kind}: stopped and continued gives other weights"
    return record


def _refuses(act: Callable[[], Any], kind: type[Exception], rule: str) -> None:
    try:
        act()
    except kind:
        return
    raise AssertionError(rule)


def _check_card(method: Method, kind: str) -> None:
    assert method.name.isidentifier() and method.title and method.source, f"{kind}: name, title or source is missing"
    assert isinstance(method.approximation, str) and 0 < method.rate < 1, f"{kind}: approximation or rate"
    if method.approximation:
        told = f"{method.title} {type(method).__doc__}".lower()
        assert "approximation" in told, f"{kind}: an approximation does not say so in its title or docstring"


def _check_folder(kind: str, place: Path, record: dict[str, Any], settings: Settings) -> None:
    found = read_training(place)
    assert found.record == record and record["schema"] == SCHEMA, f"{kind}: {RECORD} is not what train returned"
    assert record["weights"], f"{kind}: the record names no weights"
    for name in record["weights"]:
        assert Path(name).suffix == ".safetensors", f"{kind}: {name} is not in safetensors"
    assert record["cost"]["steps"] == settings.steps, f"{kind}: the record tells other steps"
    assert record["cost"]["flops"] > 0 and record["cost"]["seconds"] > 0, f"{kind}: no cost"
    assert any("loss" in entry for entry in record["log"]), f"{kind}: no loss was logged"
    assert not (place / CHECKPOINTS).exists(), f"{kind}: checkpoints are left behind"
    assert str(place) not in json.dumps(record), f"{kind}: the record holds a path of the machine"
    for file in place.glob("*.json"):
        assert str(place) not in file.read_text(encoding="utf-8"), f"{kind}: {file.name} holds a path of the machine"


def _weights(record: dict[str, Any]) -> dict[str, str]:
    return dict(record["weights"])


def check_adapter_method(method: AdapterMethod, folder: Path) -> None:
    """What holds for a finished training of an adapter beyond :func:`check_method`: rows, audits, PEFT's two files."""
    kind = type(method).__name__
    record = read_training(folder).record
    lines = (folder / ROWS).read_text(encoding="utf-8").splitlines()
    assert len(lines) == record["rows"] > 0, f"{kind}: rows were not written down"
    names = [json.loads(line)["name"] for line in lines]
    assert len(set(names)) == len(names), f"{kind}: two rows have one name"
    assert {"template", "pictures", "seats"} <= set(record["audits"]["before"]), f"{kind}: an audit is missing"
    assert record["audits"]["after"]["changes_logits"] > 0, f"{kind}: the adapter changes nothing"
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == record["base"]["name"], f"{kind}: the adapter names another base"
    digest = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert digest in record["weights"].values(), f"{kind}: the adapter's weights are not the record's"
