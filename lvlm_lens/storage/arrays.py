"""A few named arrays, and text about them, in one safetensors file that is whole or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import RunFolderError
from .commit import replacing

_ABOUT = "all entries"


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], about: dict[str, str] | None = None) -> None:
    """Write arrays by name; ``about`` is kept as the file's metadata.

    Equal content gives equal bytes: safetensors writes several entries of metadata in an order that changes from call
    to call, so all of ``about`` is one entry.
    """
    from safetensors.numpy import save_file

    entry = {_ABOUT: json.dumps(about, sort_keys=True)} if about else None

    with replacing(path) as beside:
        # asarray, since ascontiguousarray makes a vector of a single number
        save_file({name: np.asarray(value, order="C") for name, value in arrays.items()}, beside, metadata=entry)


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays by name and the metadata.

    Raises:
        RunFolderError: the file is missing or none of these.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            arrays, kept = {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
            one_entry = set(kept) == {_ABOUT}  # an earlier version wrote entry by entry
            return arrays, json.loads(kept[_ABOUT]) if one_entry else kept
    except (OSError, SafetensorError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}); remove it and run again") from error
