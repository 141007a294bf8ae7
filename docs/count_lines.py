"""Count the lines of each room: ``python docs/count_lines.py`` writes the column *now* of ``benchmarks/lines.json``."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "benchmarks" / "lines.json"


def count(package: Path) -> dict[str, int]:
    """Lines of Python by room; files that lie beside the rooms count together, under an empty name."""
    found: Counter[str] = Counter()
    for file in package.rglob("*.py"):
        inside = file.relative_to(package).parts
        found[inside[0] if len(inside) > 1 else ""] += len(file.read_text(encoding="utf-8").splitlines())
    return dict(sorted(found.items()))


if __name__ == "__main__":
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    record["now"] = count(ROOT / "lvlm_lens")
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
