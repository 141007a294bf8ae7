"""The words of a sweep's command over the table and the checkpoints of ``conftest.py``."""

from pathlib import Path


def columns() -> list[str]:
    pairs = {"id": "name", "text": "question", "image": "file", "label": "harmful", "group": "box"}
    return [word for key, column in pairs.items() for word in (f"--{key}-column", column)]


def arguments(checkpoints: Path, table: Path, out: Path, family: str = "llava", file: str = "data.csv") -> list[str]:
    return [
        "sweep", "--model", str(checkpoints / family), "--dataset", str(table / file), "--root", str(table),
        "--out", str(out), "--permutations", "20", "--replicates", "200", *columns(),
    ]  # fmt: skip
