"""What a sweep's ``result.json`` must hold, checked once when a run is opened.

A result may be years old, cut off, edited by hand, or a stranger's.  Whoever opens one gets a record whose parts have
the types that the rest of the toolkit counts on, or an error that names the part.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import DataError, LensError, RunFolderError
from .locate.roles import LayerRoles
from .stages.records import result_schema
from .stats.curve import Curve
from .storage.schema import problems


def read_result(file: Path, schema: str) -> dict[str, Any]:
    """The record of a finished sweep.

    Args:
        file: ``result.json`` of a run folder.
        schema: the name and version that is understood.

    Raises:
        RunFolderError: no JSON, another schema, or a part that is missing or of another type (it is named).
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8 is a ValueError too
        raise RunFolderError(f"{file} is not a readable JSON file ({error})") from error
    if not isinstance(data, dict) or data.get("schema") != schema:
        named = data.get("schema") if isinstance(data, dict) else None
        raise RunFolderError(f"{file} has schema {named!r}; this version reads {schema!r}")
    wrong = next(problems(data, result_schema()), None)
    if wrong is not None:
        raise RunFolderError(f"{file}: {wrong}; run the sweep again")
    if data["model"]["blocks"] < 1:
        raise RunFolderError(f"{file}: model.blocks is {data['model']['blocks']}; a model has at least one block")
    try:
        _roles(data["roles"])
    except (LensError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise _damaged(file, "roles", error) from error
    for number, row in enumerate(data["curves"]):
        try:
            _curve(row)
        except (LensError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            raise _damaged(file, f"curves[{number}]", error) from error
    return data


def _no_number(word: str) -> float:
    raise ValueError(f"it holds {word}, which is no JSON number")


def _damaged(file: Path, part: str, error: Exception) -> RunFolderError:
    return RunFolderError(f"{file}: {part} cannot be read ({error}); run the sweep again")


def _roles(record: Any) -> None:
    """Raise where a role lacks what its words promise: blocks of its onset, range and peak where it was found."""
    for role in LayerRoles.from_dict(record):
        if not isinstance(role.found, bool) or not isinstance(role.reason, str):
            raise DataError(f"{role.name} says neither found nor why not")
        blocks = (role.onset, role.onset_low, role.onset_high, role.peak, *(role.range or (None,)))
        numbers = (role.value, role.low, role.high)
        if role.found and not all(type(b) is int for b in blocks):
            raise DataError(f"{role.name} is found and its blocks are {blocks}")
        if role.found and not all(isinstance(x, (int, float)) for x in numbers):
            raise DataError(f"{role.name} is found and its value is {numbers}")


def _curve(row: Any) -> Curve:
    """The curve of a record; its blocks are whole numbers in rising order."""
    curve = Curve.from_dict(row)
    blocks = list(curve.blocks)
    if not blocks or any(not isinstance(b, int) or b < 0 for b in blocks) or blocks != sorted(set(blocks)):
        raise DataError(f"its blocks are {str(blocks)[:60]}")
    if not isinstance(curve.name, str):
        raise DataError("it has no name")
    return curve
