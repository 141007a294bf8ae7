"""Files of results are written by the storage room, whole or absent, and nowhere else."""

import ast
from pathlib import Path

import pandas as pd
import pytest

import lvlm_lens
from lvlm_lens.storage.tables import save_table

ROOT = Path(lvlm_lens.__file__).parent
WRITES = {"write_text", "write_bytes", "to_parquet", "to_csv", "savefig", "save_file"}
ELSEWHERE = {
    "models/smol": "a folder that is made aside and put in its place by one rename",
    "bench/worker.py": "the kernel's counter", "bench/measure.py": "the kernel's counter",
    "scale/pool.py": "a file to see whether workers share the folder",
}  # fmt: skip


def writers() -> dict[str, list[int]]:
    """Calls that write a file by themselves, by module; what is inside ``with replacing(...)`` does not count."""
    found: dict[str, list[int]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text())
        whole = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.With) and "replacing" in ast.unparse(node.items[-1].context_expr)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and id(node) not in whole:
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                shown = ast.unparse(node)
                if name in WRITES and "held" not in shown:  # ``held``: a figure into memory, for notebooks
                    found.setdefault(path.relative_to(ROOT).as_posix(), []).append(node.lineno)
    return found


def test_files_are_written_by_the_storage_room_alone():
    others = {
        path: lines
        for path, lines in writers().items()
        if not path.startswith("storage/") and not any(path.startswith(place) for place in ELSEWHERE)
    }
    assert not others
    gone = [place for place in ELSEWHERE if not any(path.startswith(place) for path in writers())]
    assert not gone, f"take them out of ELSEWHERE: {gone}"


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path, ending):
    path = tmp_path / f"t.{ending}"
    table = pd.DataFrame({"block": [0, 1], "value": [0.5, 0.75]})
    save_table(path, table)
    read = pd.read_csv if ending == "csv" else pd.read_parquet
    pd.testing.assert_frame_equal(read(path), table)

    class Torn:
        def __str__(self) -> str:
            raise RuntimeError("torn")

    with pytest.raises(Exception):  # noqa: B017
        save_table(path, pd.DataFrame({"block": [0, Torn()]}))
    pd.testing.assert_frame_equal(read(path), table)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
