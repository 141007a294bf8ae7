"""Scripts beside the package are run by hand and by no other test: what they take from the package must be there."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    path.relative_to(ROOT)
    for folder in ("benchmarks", "training", "docs", "notebooks")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_what_a_script_imports_exists(script):
    for node in ast.walk(ast.parse((ROOT / script).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").startswith("lvlm_lens"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):  # then it must be a module
                    importlib.import_module(f"{node.module}.{alias.name}")


def test_scripts_were_found():
    assert {Path("benchmarks/trainings.py"), Path("docs/generate.py")} <= set(SCRIPTS)
