"""One name and one default for what every part of the package takes; the defaults are those of ``SweepConfig``.

Read from the syntax tree: every public function, method and dataclass.  Where a default differs on purpose, the reason
stands here, and nowhere may it differ without one.
"""

import argparse
import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

import lvlm_lens
from lvlm_lens.cli import COMMANDS, build_parser
from lvlm_lens.config import SweepConfig
from lvlm_lens.selftest.settings import StudySettings
from lvlm_lens.training_settings import Settings

ROOT = Path(lvlm_lens.__file__).parent
SHARED = ("seed", "blocks", "positions", "batch_size", "folds", "out", "limit", "split", "subset", "root", "strict")
DEFAULTS = {name: getattr(SweepConfig(), name) for name in SHARED} | {"random_state": 0, "progress": None}

ON_PURPOSE = {
    "batch_size": {
        "None": "patch grids choose it by the length of the prompts",
        "8": "a judge is larger than what it judges",
        "4": "rows of an optimiser's step, with their gradients",
        "16": "a method's own generation before it trains",
        "64": "a method's own generation before it trains",
    },
    "positions": {
        "'all'": "what is written, or attributed, everywhere: a projection, a mean",
        "None": "every position that there is",
        "()": "a run's own settings",
    },
    "seed": {
        "SEED": "the published audit's, apart from those it was developed with",
        "1": "the published record's, apart from those it was developed with",
        "StudySettings.seed": "that one",
        "5": "the published comparison's, apart from the selftest's",
        "'mini words, second draw'": "a set that is drawn once",
        "'mini picture, second draw'": "a set that is drawn once",
    },
    "blocks": {
        "16": "the shape of a benchmark's model", "33": "the shape of a benchmark's model",
        "'layers'": "a family's name of its list of blocks", "()": "of a claim without any",
    },
    "progress": {"silent": "a stage's, called without asking", "_silent": "a job's, called without asking",
                 "lambda done, total: None": "called without asking",
                 "lambda stage, done, total: None": "called without asking"},
    "folds": {"4": "of a fit inside a fold", "3": "of a fit inside a fold"},
    "split": {"'all'": "of a loaded set that does not say"},
    "limit": {"_BYTES": "of a file's size"},
}  # fmt: skip
"""Defaults that differ: the name, the default as written, why."""

OTHER_WORDS = {
    "layers": "blocks", "layer": "block", "n_jobs": "workers", "bs": "batch_size",
    "batchsize": "batch_size", "callback": "progress", "on_progress": "progress", "verbose": "progress",
    "random_seed": "seed", "out_dir": "out", "output_dir": "out", "save_dir": "out", "max_samples": "limit",
}  # fmt: skip
"""Names that other libraries have for these; here they would be a second name."""


class Argument(NamedTuple):
    name: str
    default: str | None
    place: str
    of_class: bool


def arguments() -> Iterator[Argument]:
    """Every argument of the public surface; ``default`` as written, ``None`` where it has to be given."""
    for path in sorted(ROOT.rglob("*.py")):
        yield from _inside(ast.parse(path.read_text()), path.relative_to(ROOT).as_posix(), False)


def _inside(node: ast.AST, place: str, of_class: bool) -> Iterator[Argument]:
    for child in ast.iter_child_nodes(node):
        name = getattr(child, "name", "")
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(child, ast.FunctionDef):
            wanted = child.args
            plain = wanted.posonlyargs + wanted.args
            defaults = [None] * (len(plain) - len(wanted.defaults)) + list(wanted.defaults)
            for arg, default in [*zip(plain, defaults, strict=True),
                                 *zip(wanted.kwonlyargs, wanted.kw_defaults, strict=True)]:  # fmt: skip
                written = None if default is None else ast.unparse(default)
                yield Argument(arg.arg, written, f"{place}:{name}", of_class and name == "__init__")
        elif isinstance(child, ast.ClassDef):
            if any("dataclass" in ast.unparse(mark) for mark in child.decorator_list):
                for line in child.body:
                    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                        written = line.value
                        if isinstance(written, ast.Call) and ast.unparse(written.func) == "setting":
                            written = written.args[0]  # a field that says its own help
                        value = None if written is None else ast.unparse(written)
                        yield Argument(line.target.id, value, f"{place}:{name}", True)
            yield from _inside(child, f"{place}:{name}", True)


ALL = list(arguments())


def test_there_is_a_surface_to_read():
    assert len(ALL) > 3000
    assert sum(argument.name == "seed" for argument in ALL) > 80


@pytest.mark.parametrize("name", DEFAULTS)
def test_one_default(name):
    allowed = {repr(DEFAULTS[name]), "...", None, *ON_PURPOSE.get(name, {})}
    others = [a for a in ALL if a.name == name and a.default not in allowed]
    assert not others


def test_no_reason_is_out_of_date():
    written = {(a.name, a.default) for a in ALL}
    gone = [(name, default) for name, reasons in ON_PURPOSE.items() for default in reasons
            if (name, default) not in written]  # fmt: skip
    assert not gone, f"take them out of ON_PURPOSE: {gone}"


def test_no_second_name():
    assert not [(a.place, a.name, f"write {OTHER_WORDS[a.name]}") for a in ALL if a.name in OTHER_WORDS]


def test_random_state_is_an_estimators_word():
    """scikit-learn's name belongs to what follows its contract; a function takes ``seed``."""
    assert not [a for a in ALL if a.name == "random_state" and not a.of_class]


def options_of(command: str) -> list[argparse.Action]:
    parser = argparse.ArgumentParser()
    import_module(f"lvlm_lens.commands.{command}").add_arguments(parser)
    return parser._actions


LEFT_TO_THE_COMMAND = {
    ("bench", "model"): "no settings of a run", ("bench", "dataset"): "no settings of a run",
    ("models", "dtype"): "of the wide battery",
}  # fmt: skip
"""Options of a setting's name whose default a command sets by itself, and why."""


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_a_setting_leave_the_default_to_the_settings(command):
    fields = SweepConfig.__dataclass_fields__
    for action in options_of(command):
        if action.dest in fields and (command, action.dest) not in LEFT_TO_THE_COMMAND:
            assert action.default is None, f"{command} --{action.dest}"
            assert "default: " in str(action.help), f"{command} --{action.dest} does not say its default"


SETTINGS = {"train": (Settings, SweepConfig), "selftest": (StudySettings,)}
"""Whose fields a command's options are, where not the sweep's alone."""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_the_default_that_holds(command):
    """Where help names a plain number or word as default, the parser or the settings have the same."""
    for action in options_of(command):
        said = re.search(r"\(default: (\d+|last|mini|auto|refuse|default)\)$", str(action.help))
        if said:
            held = action.default
            if held is None:
                settings = next(kind for kind in SETTINGS.get(command, (SweepConfig,)) if hasattr(kind, action.dest))
                held = getattr(settings, action.dest)
            shown = f"{held:g}" if isinstance(held, float) else str(held)
            assert shown == said[1], f"{command} --{action.dest}"


def test_every_setting_is_an_option_of_the_sweep_or_a_column():
    known = {action.dest for action in options_of("sweep")}
    assert set(SweepConfig.__dataclass_fields__) - {"columns"} <= known


def test_a_flag_arrives_in_the_settings():
    from lvlm_lens.commands.options import config_from

    words = "--seed 3 --batch-size 4 --no-twin --strict --limit 8 --special-tokens escape --measures all"
    options = build_parser("sweep").parse_args(["sweep", *words.split()])
    config = config_from(options)
    assert (config.seed, config.batch_size, config.twin, config.strict, config.limit) == (3, 4, False, True, 8)
    assert (config.special_tokens, config.measures) == ("escape", "all")
    assert config_from(build_parser("sweep").parse_args(["sweep"])) == SweepConfig()
