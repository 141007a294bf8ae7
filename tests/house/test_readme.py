"""Every Python block of the README and of ``docs/`` runs as it stands, and the pages say what the code says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHON = [
    (page, number, block)
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M))
]
BASH = re.findall(r"^```bash\n(.*?)^```", README, re.S | re.M)


@pytest.mark.parametrize(("page", "number", "block"), PYTHON, ids=lambda value: getattr(value, "name", None))
def test_python_block_runs(page, number, block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, f"{page.name} block {number}", "exec"), {})


def test_the_readme_is_short():
    assert README.count("\n") <= 150


def test_two_commands_each_a_single_line():
    assert len(BASH) == 2 and all(block.count("\n") == 1 for block in BASH)
    assert BASH[0].strip().endswith("lvlm-lens sweep") and "pytest" in BASH[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_and_files_that_a_page_names_are_there(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in name:
            assert (page.parent / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_a_page_shows_can_be_parsed(page):
    from lvlm_lens.cli import build_parser

    for block in re.findall(r"^```text\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            words = re.sub(r"\s#.*", "", line.strip()).split()
            if words[:1] == ["lvlm-lens"] and "..." not in words and len(words) > 1 and words[1].islower():
                build_parser(words[1]).parse_args(words[1:])


def test_every_page_of_the_docs_is_in_their_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    missing = [page.name for page in PAGES if page.parent.name == "docs" and page.name != "README.md"
               and f"({page.name})" not in index]  # fmt: skip
    assert not missing, missing


def test_tables_are_those_of_the_code():
    """A measure, defence, data set, recipe, family, command or option that is added is added to the docs too."""
    done = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tables_name_everything_that_is_registered():
    from lvlm_lens.cli import COMMANDS
    from lvlm_lens.data.registry import FORMATS
    from lvlm_lens.defenses.registry import DEFENSES
    from lvlm_lens.recipes import recipe_names
    from lvlm_lens.stages.measuring import MEASURES

    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = sorted(name for name in {*MEASURES, *DEFENSES, *FORMATS, *recipe_names()} if f"| `{name}` |" not in pages)
    missing += sorted(name for name in COMMANDS if f"## `lvlm-lens {name}`" not in pages)
    assert not missing, missing


def test_the_tests_that_the_docs_name_are_there():
    words = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = re.findall(r"`(?:tests/)?(\w+/test_\w+\.py)::(test_\w+)`", words)
    assert len(named) > 40
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), f"{file}::{name}"
