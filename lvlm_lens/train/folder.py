"""The folder a training writes.

::

    adapter_config.json, adapter_model.safetensors    PEFT's own two files (methods that train an adapter)
    training.json     the record: method, settings, base, data, rows, audits, loss, cost, versions; written last
    run.json          what makes this training this training; another one is refused here
    rows.jsonl        the rows that were trained on, a line each
    audit.json        what was checked before the first step
    checkpoints/      the trainer's own, removed when the training is finished
    other files       weights of a method's own modules (safetensors), named under "weights" in training.json

``base_model_name_or_path`` of the adapter is the name the base was given by (``mini``), never a path of the machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, ModelError
from ..provenance import dataset_hash, environment
from ..storage.runfolder import RunFolder

if TYPE_CHECKING:
    from .method import Job, Method

SCHEMA = "lvlm-lens training 1"
RECORD, ROWS, AUDIT, CHECKPOINTS = "training.json", "rows.jsonl", "audit.json", "checkpoints"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Training:
    """A finished training, read from its folder.

    Attributes:
        folder: where it is; record: ``training.json``.
    """

    folder: Path
    record: Mapping[str, Any]

    @property
    def method(self) -> str:
        """Name of its method."""
        return str(self.record["method"]["name"])

    @property
    def cost(self) -> dict[str, float]:
        """``steps``, ``flops``, ``tokens``, ``seconds`` of the training."""
        return dict(self.record["cost"])


def identity(method: Method, job: Job, base: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal for a folder to be continued.

    ``base`` describes the weights the training starts from (at least ``name`` and ``weights_hash``).
    """
    free = ("save_every",)  # changes how much a kill loses, and nothing of what is learnt
    return {
        "schema": SCHEMA,
        "method": method.name,
        "options": {key: repr(value) for key, value in method.get_params(deep=False).items()},
        "settings": {key: value for key, value in job.settings.to_dict().items() if key not in free},
        "base": dict(base),
        "data": {"name": job.data.name, "hash": dataset_hash(job.data)},
    }


def finish(
    method: Method,
    job: Job,
    base: Mapping[str, Any],
    *,
    weights: Sequence[str],
    audits: Mapping[str, Any],
    log: Sequence[Mapping[str, float]],
    cost: Mapping[str, float],
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write ``training.json`` and return it: the last act of every method.

    Args:
        method, job: what was trained.
        base: as given to :func:`identity`.
        weights: names of the weight files in the folder; each is hashed.
        audits: ``before`` and ``after``: every check with what it saw.
        log: one entry a logged step (``step``, ``loss`` ...).
        cost: ``steps``, ``flops``, ``tokens``, ``seconds``.
        more: further fields of the method.
    """
    import platform
    from importlib import metadata

    versions = {name: metadata.version(name) for name in ("trl", "peft", "accelerate") if _installed(name)}
    record = {
        "schema": SCHEMA,
        "method": {
            "name": method.name,
            "title": method.title,
            "source": method.source,
            "approximation": method.approximation,
            "options": {key: repr(value) for key, value in method.get_params(deep=False).items()},
        },
        "settings": job.settings.to_dict(),
        "base": dict(base),
        "data": {
            "name": job.data.name,
            "hash": dataset_hash(job.data),
            "samples": len(job.data),
            "ids": [sample.id for sample in job.data],
            "groups": sorted({sample.group or sample.id for sample in job.data}),
            "left_out": [str(problem) for problem in job.data.problems],
        },
        "weights": {name: hashlib.sha256((job.folder / name).read_bytes()).hexdigest() for name in weights},
        "audits": dict(audits),
        "log": [dict(entry) for entry in log],
        "cost": dict(cost),
        **dict(more or {}),
        "provenance": {
            **environment(job.settings.seed, list(job.command) if job.command is not None else None),
            "training_packages": versions,
            "processor": platform.machine(),
        },
    }
    RunFolder(job.folder).write_json(RECORD, record)
    return record


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def read_training(folder: str | Path) -> Training:
    """A finished training.

    Raises :class:`ModelError` for a folder without one, or one whose weights are not those of its record.
    """
    path = Path(folder).expanduser()
    file = path / RECORD
    if not file.is_file():
        begun = (path / CHECKPOINTS).is_dir() or (path / ROWS).is_file()
        more = "; its training is not finished: the same command continues it" if begun else ""
        raise ModelError(f"folder {str(folder)!r} holds no {RECORD}{more}")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        listed = dict(record["weights"])
        known = record["schema"] == SCHEMA and isinstance(record["method"]["name"], str)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{RECORD} in {str(folder)!r} cannot be read: {error}") from error
    if not known:
        raise ModelError(f"{RECORD} in {str(folder)!r} is of schema {record['schema']!r}; expected {SCHEMA!r}")
    for name, digest in listed.items():
        place = path / name
        if place.parent != path or not place.is_file():
            raise ModelError(f"training {path.name!r}: its weights {name!r} are not there")
        if hashlib.sha256(place.read_bytes()).hexdigest() != digest:
            raise ModelError(f"training {path.name!r}: {name} is not the file that its {RECORD} tells of")
    return Training(path, record)


def read_rows(folder: Path) -> list[dict[str, Any]] | None:
    """The rows written by an earlier start, or ``None``.  Raises :class:`DataError` for a file that is no such list."""
    file = folder / ROWS
    if not file.is_file():
        return None
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise DataError(
            f"{ROWS} in {folder.name!r} cannot be read ({error}); remove the folder and start anew"
        ) from error
