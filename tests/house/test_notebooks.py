"""Every notebook runs from top to bottom, as it is, in a fresh kernel; and what it shows is what its code gave."""

import importlib.util
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from lvlm_lens.models.smol.store import BASE, store_folder

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def tool():
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    reads_smol = any(cell.cell_type == "code" and 'from_pretrained("smol' in cell.source for cell in notebook.cells)
    if reads_smol and not (store_folder() / BASE).is_dir():
        pytest.skip("SmolLM2 is not in the cache (lvlm-lens models smol --fetch)")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    printed = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert len(printed) >= 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_ships_executed(path):
    assert tool().complaints(path) == []


def test_outputs_older_than_the_code_are_told(tmp_path):
    path = shutil.copy(NOTEBOOKS[0], tmp_path / "changed.ipynb")
    notebook = nbformat.read(path, as_version=4)
    next(cell for cell in notebook.cells if cell.cell_type == "code").source += "\nprint('changed')"
    nbformat.write(notebook, path)
    assert any("older than the code" in line for line in tool().complaints(Path(path)))
