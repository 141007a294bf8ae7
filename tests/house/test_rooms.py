"""Imports of ours run one way, from the upper rooms to the lower ones, and each names a module that is there.

Read from the syntax tree, so an import inside a function counts too, and one that only type
checkers see.  ``ROOMS`` is the order of the house; a new room
takes its place in it.
"""

import ast
from collections import defaultdict
from pathlib import Path

import lvlm_lens

ROOT = Path(lvlm_lens.__file__).parent

ROOMS = (
    "errors", "plugins", "depth", "machine", "inference", "settings", "training_settings", "progress", "tolerance",
    "columns", "config", "storage", "stats", "data", "provenance", "models", "activations", "interventions", "lens",
    "causal", "remote", "measures", "locate", "evaluate", "cards", "plots", "train", "defenses", "selftest",
    "memory", "speed", "stages", "resultschema", "estimate", "estimate_patch", "recipes", "estimate_evaluation",
    "rivals", "scale", "sweep", "comparison", "against_base", "report", "wide", "bench", "commands", "cli",
    "__main__",
)  # fmt: skip
"""From the ground floor up: a room imports those before it and itself.  There are no exceptions."""


def imports(path: Path) -> list[tuple[tuple[str, ...], list[str]]]:
    """Our own modules that a file imports, and the names."""
    here = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1]
            module = (*base, *(node.module.split(".") if node.module else ()))
            found.append((module, [name.name for name in node.names]))
    return found


def file_of(module: tuple[str, ...]) -> Path | None:
    place = ROOT.joinpath(*module)
    for path in (place.with_suffix(".py") if module else place, place / "__init__.py"):
        if path.is_file():
            return path
    return None


FILES = sorted(ROOT.rglob("*.py"))


def test_every_import_of_ours_names_a_module_that_is_there():
    named = [(path.relative_to(ROOT), module) for path in FILES for module, _ in imports(path)]
    missing = [f"{path}: {'.'.join(module)}" for path, module in named if not file_of(module)]
    assert not missing


def test_every_room_has_its_place():
    rooms = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert rooms <= set(ROOMS), sorted(rooms - set(ROOMS))


def test_imports_run_downwards():
    rank = {room: place for place, room in enumerate(ROOMS)}
    upwards = defaultdict(set)
    for path in FILES:
        inside = path.relative_to(ROOT)
        room = inside.parts[0].removesuffix(".py")
        for module, _ in imports(path):
            other = module[0] if module else "__init__"
            if other != "__init__" and room != "__init__" and rank[other] > rank[room]:
                upwards[inside.as_posix(), other].add(".".join(module))
    assert not upwards, dict(upwards)


def test_no_module_needs_itself():
    """No circle among imports, those inside functions and those for annotations included."""
    needs: dict[Path, set[Path]] = {}
    for path in FILES:
        needs[path] = set()
        for module, names in imports(path):
            below = [file_of((*module, name)) for name in names]
            own = [] if all(below) else [file_of(module)]  # a part of a package does not need its whole __init__
            needs[path] |= {found for found in (*below, *own) if found is not None and found != path}
    done: set[Path] = set()

    def walk(path: Path, way: tuple[Path, ...]) -> None:
        if path in way:
            # a package's own __init__ names its parts; a part that imports from its siblings does not need it
            circle = [p.relative_to(ROOT).as_posix() for p in way[way.index(path) :]]
            raise AssertionError(f"a circle of imports: {' -> '.join(circle)}")
        if path in done:
            return
        for other in sorted(needs[path]):
            walk(other, (*way, path))
        done.add(path)

    for path in FILES:
        walk(path, ())


def test_the_package_imports_itself_by_relative_names_only():
    """An absolute import would pass by the tests above, which follow the relative ones."""
    absolute = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            absolute += [str(path.relative_to(ROOT)) for name in names if name.split(".")[0] == "lvlm_lens"]
    assert not absolute
