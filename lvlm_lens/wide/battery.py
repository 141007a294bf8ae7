"""All rows of the wide battery, each in a process of its own, kept in one file as they are done."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import RunFolderError, UsageError, near_matches
from ..storage.commit import write_atomic
from .shapes import SHAPES

SCHEMA = "lvlm-lens/wide/1"
DTYPES = ("bfloat16", "float32")
PICTURES = 2
"""Items of each row that have a picture: one matched pair; the other 14 are words."""


def run_battery(
    file: str | Path,
    names: Sequence[str] | None = None,
    dtypes: Sequence[str] = DTYPES,
    device: str = "cpu",
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run the rows that ``file`` does not hold yet, write it after each, and return it.

    Args:
        file: the record, JSON; a run that was stopped continues there.
        names: some of :data:`~.shapes.SHAPES`; all by default.
        dtypes: which number types.
        device: where rows run.
        tell: called with a line before and after each row.

    Raises:
        UsageError: a model that is not in the battery.
        RunFolderError: ``file`` is something else.
    """
    tell = tell or (lambda line: None)
    chosen = list(SHAPES if names is None else names)
    for name in chosen:
        if name not in SHAPES:
            raise UsageError(
                f"no model {name!r} in the wide battery{near_matches(name, SHAPES)}; there are: {', '.join(SHAPES)}"
            )
    file = Path(file)
    record = _opened(file)
    for dtype in dtypes:
        for name in chosen:
            if any((row["model"], row["dtype"], row["device"]) == (name, dtype, device) for row in record["rows"]):
                continue
            tell(f"{name}, {dtype} ...")
            row = _row(name, dtype, device)
            if "error" in row:  # said, and tried again by the next run
                tell(f"{name}, {dtype}: {row['error']}")
                record["failed"] = [r for r in record["failed"] if (r["model"], r["dtype"]) != (name, dtype)] + [row]
            else:
                record["failed"] = [r for r in record["failed"] if (r["model"], r["dtype"]) != (name, dtype)]
                record["rows"].append(row)
                verdict = "ok" if row["ok"] else "DIFFERS"
                cost = f"{row['seconds_in_all']:.0f} s, {row['peak_bytes'] / 2**30:.1f} GiB"
                tell(f"{name}, {dtype}: {verdict}, largest difference {row['largest_difference']:.1e}, {cost}")
            write_atomic(file, json.dumps(record, indent=2) + "\n")
    return record


def _opened(file: Path) -> dict[str, Any]:
    if not file.is_file():
        about = {"python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads()}
        return {"schema": SCHEMA, "machine": about, "rows": [], "failed": []}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise RunFolderError(f"{str(file)!r} is no record of the wide battery; give another file (--out)")
    return found


def _row(name: str, dtype: str, device: str) -> dict[str, Any]:
    """A row from a process of its own, so that its peak memory is its own."""
    words = [sys.executable, "-m", "lvlm_lens.wide.row", name, dtype, device, str(PICTURES)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])  # type: ignore[no-any-return]
    said = done.stderr.strip().splitlines()
    reason = said[-1] if said else f"ended with code {done.returncode}"
    return {"model": name, "dtype": dtype, "device": device, "error": reason[:500]}


COLUMNS = (
    "model",
    "dtype",
    "image tokens",
    "vocabulary",
    "difference",
    "noise",
    "noise, padded",
    "seconds",
    "peak / weights",
    "state",
)


def table_rows(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the record as text, under :data:`COLUMNS`."""
    made = [
        (
            row["model"], row["dtype"], f"{row['image_tokens']:,}", f"{row['vocabulary']:,}",
            f"{row['largest_difference']:.1e}", f"{row['noise']:.1e}", f"{row['noise_padded']:.1e}",
            f"{row['seconds_in_all']:.0f}" + ("" if row.get("clock") == "process" else ", wall"),
            f"{row['peak_bytes'] / 2**30:.1f} / {row['weights_bytes'] / 2**30:.1f} GiB",
            "ok" if row["ok"] else "DIFFERS",
        )
        for row in record["rows"]
    ]  # fmt: skip
    return made + [(row["model"], row["dtype"], *["-"] * 7, row["error"]) for row in record["failed"]]
