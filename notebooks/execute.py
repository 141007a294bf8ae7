"""Run every notebook and keep what it prints and draws, so that a reader on the web sees it.

    python notebooks/execute.py              # all of them
    python notebooks/execute.py 01 04        # some
    python notebooks/execute.py --check      # names those whose outputs belong to other code than they show

Each runs in a fresh kernel in a folder of its own, so that nothing is left behind.  The code that was run is kept as a
hash in the notebook's metadata.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KEY = "executed"
LARGEST = 1_000_000
"""Bytes of one notebook, pictures included."""


def code_hash(notebook: Any) -> str:
    """SHA-256 of the code cells."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(cells).encode()).hexdigest()


def complaints(path: Path) -> list[str]:
    """What is wrong with a stored notebook; empty where its outputs are those of the code it shows."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    found = []
    if notebook.metadata.get(KEY, {}).get("code") != code_hash(notebook):
        found.append("its outputs are older than the code it shows; run `python notebooks/execute.py`")
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if any(output.output_type == "error" for cell in cells for output in cell.outputs):
        found.append("it holds an error")
    if not any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs):
        found.append("it shows no figure")
    if path.stat().st_size > LARGEST:
        found.append(f"it is {path.stat().st_size:,} bytes; at most {LARGEST:,}")
    return found


def tidy(notebook: Any, folder: str) -> None:
    """Take out what belongs to the machine: warnings, times of day, the folder it ran in."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            if "text" in output:
                output["text"] = output["text"].replace(folder, ".")


def execute(path: Path) -> float:
    """Run one notebook and store it; returns the seconds it took."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "figures").symlink_to(HERE.parent / "figures")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=3600, kernel_name="python3", resources=resources).execute()
        tidy(notebook, folder)
    notebook.metadata[KEY] = {"code": code_hash(notebook)}
    nbformat.write(notebook, path)
    return time.perf_counter() - start


def main(words: Sequence[str]) -> int:
    """Execute, or check; 1 where a notebook is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of file names (default: all)")
    parser.add_argument("--check", action="store_true", help="run nothing")
    options = parser.parse_args(words)
    wrong = 0
    for path in sorted(HERE.glob("*.ipynb")):
        if options.names and not path.name.startswith(tuple(options.names)):
            continue
        if not options.check:
            print(f"{path.name}: {execute(path):.0f} s, {path.stat().st_size:,} bytes", flush=True)
        for complaint in complaints(path):
            wrong += 1
            print(f"{path.name}: {complaint}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
