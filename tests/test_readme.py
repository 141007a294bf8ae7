"""Every Python block of the README runs as it stands, and the command blocks are what CI takes."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.S | re.M)
BASH = re.findall(r"^```bash\n(.*?)^```", README, re.S | re.M)


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_block_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(PYTHON[number], f"README.md block {number}", "exec"), {})


def test_two_commands_each_a_single_line():
    assert len(BASH) == 2 and all(block.count("\n") == 1 for block in BASH)
    assert BASH[0].strip().endswith("lvlm-lens sweep") and "pytest" in BASH[1]


def test_figures_of_the_readme_are_there():
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[1] / name).is_file(), name


def test_tables_name_everything_that_is_registered():
    """A measure, defence, data set, recipe or command that is added is added to the page too."""
    from lvlm_lens.cli import COMMANDS
    from lvlm_lens.data.registry import FORMATS
    from lvlm_lens.defenses.registry import DEFENSES
    from lvlm_lens.recipes import recipe_names
    from lvlm_lens.stages.measuring import MEASURES

    named = {*MEASURES, *DEFENSES, *FORMATS, *recipe_names()}
    missing = sorted(name for name in named if f"| `{name}` |" not in README)
    missing += sorted(name for name in COMMANDS if f"`lvlm-lens {name}`" not in README)
    assert not missing, missing
