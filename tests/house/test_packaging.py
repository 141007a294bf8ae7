"""What the package imports is declared, what is declared is used, heavy packages are imported where they are used."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import lvlm_lens

ROOT = Path(lvlm_lens.__file__).parent
PROJECT = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]

NAMED = {
    "gguf": "transformers reads GGUF files with it",
    "bitsandbytes": "transformers quantises with it",
}
"""Packages that are declared and that another package imports for us, and why."""

LATE = {
    "accelerate", "datasets", "huggingface_hub", "jinja2", "nnsight", "peft", "plotly", "ray",
    "transformer_lens", "trl", "zarr",
}  # fmt: skip
"""Imported inside the functions that need them: heavy, or of few users."""


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-")


def imports() -> dict[str, set[tuple[str, bool]]]:
    """Third-party modules to ``(file, at its top)``."""
    found: dict[str, set[tuple[str, bool]]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text())
        checked = {
            id(inner)
            for node in tree.body
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            for inner in ast.walk(node)
        }
        inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules = [node.module]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                modules = [a.value for a in node.args[:1] if isinstance(a, ast.Constant) and a.value[0] != "."]
            else:
                continue
            for module in {name.split(".")[0] for name in modules} - set(sys.stdlib_module_names):
                top = id(node) not in inside and id(node) not in checked
                found.setdefault(module, set()).add((path.relative_to(ROOT).as_posix(), top))
    return found


IMPORTS = imports()
PLAIN = {name_of(line) for line in PROJECT["dependencies"]}
EXTRAS = {name: {name_of(line) for line in lines} for name, lines in PROJECT["optional-dependencies"].items()}
USERS = {name for extra in ("smol", "train", "scale", "adapters") for name in EXTRAS[extra]}
OWNERS = packages_distributions()


def owner(module: str) -> str:
    return OWNERS[module][0].lower().replace("_", "-")


def test_every_import_is_declared():
    undeclared = {module: sorted(IMPORTS[module]) for module in IMPORTS if owner(module) not in PLAIN | USERS}
    assert not undeclared


def test_everything_declared_is_imported():
    used = {owner(module) for module in IMPORTS} | set(NAMED)
    assert not (PLAIN | USERS) - used
    assert not set(NAMED) & {owner(module) for module in IMPORTS}, "imported after all: take it out of NAMED"


def test_an_extra_is_never_needed_to_import_a_module():
    needed = {module: [file for file, top in places if top] for module, places in IMPORTS.items()}
    assert not {m: files for m, files in needed.items() if files and owner(m) not in PLAIN}


def test_heavy_packages_are_imported_where_they_are_used():
    early = {m: [file for file, top in IMPORTS[m] if top] for m in LATE}
    assert not {m: files for m, files in early.items() if files}


def test_the_developers_extra_holds_what_users_extras_hold():
    assert (USERS - {"bitsandbytes"}) <= EXTRAS["dev"]


def test_what_is_declared_is_pinned():
    pins = {name_of(line) for line in (ROOT.parent / "constraints.txt").read_text().splitlines() if "==" in line}
    assert not (PLAIN | USERS | EXTRAS["dev"]) - pins - {"types-pyyaml"}
