"""Sets whose authors have not published their files: one reader for the schemas this toolkit defines.

Each of ``ssui.py``, ``rsbench.py``, ``msr_align.py`` and ``rational.py`` names its fields; a file in that schema is
a JSON list or JSON Lines, named ``NAME.json`` or ``NAME.jsonl`` under the root.  :func:`write_template` writes one
harmless example record to start from.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError
from ..storage.commit import write_atomic
from .cards import DatasetCard
from .collect import Collector
from .dataset import Dataset
from .reading import read_table
from .sample import Sample


def load_own(name: str, root: Path, strict: bool, build: Callable[[Any, Collector, int], Sample]) -> Dataset:
    """Read ``NAME.json`` or ``NAME.jsonl`` under ``root``; ``build`` makes the sample of one record."""
    out = Collector(name, root, strict)
    file = out.file(f"{name}.json", f"{name}.jsonl", f"{name}.parquet", f"{name}.csv")
    for number, (place, row) in enumerate(read_table(file)):
        with out.record(place, file):
            out.add(build(row, out, number), place)
    out.notes.append(f"{name}: read in this toolkit's own schema; the authors' files are not public")
    return out.dataset()


def write_template(card: DatasetCard | str, file: Path | str) -> Path:
    """Write one example record of an own-schema set to ``file`` (.json: a list; .jsonl: a line).

    Raises :class:`UsageError` for a set with a published format, or a suffix that is neither;
    :class:`DataError` for an unknown name, or when the file exists.
    """
    if isinstance(card, str):
        from .registry import card as by_name  # the registry imports the format files, and they this one

        card = by_name(card)
    found = card
    if found.template is None:
        raise UsageError(f"data set {found.name!r} has a published format; a template is for sets with our own schema")
    path = Path(file)
    if path.suffix not in (".json", ".jsonl"):
        raise UsageError(f"a template is written as .json or .jsonl, not {path.suffix or path.name!r}")
    if path.exists():
        raise DataError(f"file {path} exists and is left as it is; name another")
    record = dict(found.template)
    shown = ([record], 2) if path.suffix == ".json" else (record, None)
    write_atomic(path, json.dumps(shown[0], indent=shown[1], ensure_ascii=False) + "\n")
    return path
