"""A package that adds one of each by entry points: its names work wherever ours do, and a broken one is named."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

MODULE = """
from dataclasses import replace
from lvlm_lens.data import Dataset, Sample
from lvlm_lens.data.cards import DatasetCard
from lvlm_lens.defenses import SafetyPrompt
from lvlm_lens.measures.spec import Measured, MeasureSpec
from lvlm_lens.recipes.figstep import RECIPE
from lvlm_lens.train.sft import SFT


class Shout(SafetyPrompt):
    "A louder prompt."
    name = "shout"


LOUDNESS = MeasureSpec("loudness", "perception", "cheap", "the plug-in", "how loud", lambda study: Measured(None))


def load(root, subset, strict):
    return Dataset([Sample(str(i), f"box {i}", label_joint=("safe", "unsafe")[i % 2]) for i in range(4)], "boxes")


BOXES = DatasetCard("boxes", "Boxes", "none", "CC0", "https://example.org", "nothing", ("data.txt",), {}, load)


class Longer(SFT):
    "More of the same."
    name = "longer"


MORE = replace(RECIPE, name="one-more")
"""

ENTRY_POINTS = """
[lvlm_lens.defenses]
shout = plug:Shout
[lvlm_lens.measures]
loudness = plug:LOUDNESS
[lvlm_lens.datasets]
boxes = plug:BOXES
[lvlm_lens.recipes]
one-more = plug:MORE
[lvlm_lens.training_methods]
longer = plug:Longer
"""

ASK = """
import json, sys
from lvlm_lens import load_dataset
from lvlm_lens.defenses.registry import make_defense, make_defenses
from lvlm_lens.recipes.registry import find_recipe, recipe_names
from lvlm_lens.stages.measuring import parse_measures
from lvlm_lens.train.registry import make_method
print(json.dumps({
    "defense": type(make_defense("shout")).__name__,
    "all": "shout" in [d.name for d in make_defenses("all")],
    "measure": "loudness" in parse_measures("loudness"),
    "dataset": len(load_dataset("boxes", root=sys.argv[1])),
    "recipe": find_recipe("one more").name,
    "last": recipe_names()[-1],
    "method": type(make_method("longer")).__name__,
}))
"""


def install(folder: Path, module: str, entry_points: str) -> dict[str, str]:
    """What pip would write; returns an environment in which it is found."""
    about = folder / "plug-0.1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text(entry_points)
    (folder / "plug.py").write_text(module)
    (folder / "boxes").mkdir()
    (folder / "boxes" / "data.txt").write_text("nothing")
    path = f"{folder}{os.pathsep}{Path(__file__).parents[2]}"
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def test_one_of_each_from_another_package(tmp_path):
    environment = install(tmp_path, MODULE, ENTRY_POINTS)
    asked = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr[-2000:]
    assert json.loads(asked.stdout) == {
        "defense": "Shout", "all": True, "measure": True, "dataset": 4, "recipe": "one-more", "last": "one-more",
        "method": "Longer",
    }  # fmt: skip


def test_a_broken_package_is_named(tmp_path):
    broken = "raise RuntimeError('half installed')"
    environment = install(tmp_path, broken, "[lvlm_lens.defenses]\nshout = plug:Shout\n")
    ask = textwrap.dedent("""
        from lvlm_lens.errors import UsageError
        from lvlm_lens.plugins import announced
        try:
            announced("lvlm_lens.defenses")
        except UsageError as error:
            print(error)
    """)
    asked = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True)
    said = asked.stdout
    assert "package 'plug'" in said and "half installed" in said and "uninstall" in said
