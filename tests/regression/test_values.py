"""No change of structure changes a number: what ``mini`` gave when it was recorded, it gives now.

Where a number is meant to change, ``python tests/regression/freeze.py --write`` prints the differences and records
them.
"""

import importlib.util
import json
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("freeze", Path(__file__).with_name("freeze.py"))
assert _SPEC is not None and _SPEC.loader is not None
freeze = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(freeze)
RECORD = json.loads(freeze.FILE.read_text())


def compare(part: str, found: dict) -> None:
    lines = list(freeze.differences(RECORD[part], found, part))
    assert not lines, "\n".join(lines[:20])


@pytest.mark.parametrize("part", freeze.FAST)
def test_values(part):
    compare(part, freeze.FAST[part]())


@pytest.mark.slow
@pytest.mark.parametrize("part", freeze.LONG)
def test_values_of_the_long_part(part):
    compare(part, freeze.LONG[part]())


def test_a_changed_number_is_named():
    changed = json.loads(json.dumps(RECORD["grids"]))
    changed["clean"][1] += 0.01
    (line,) = freeze.differences(RECORD["grids"], changed, "grids")
    assert line.startswith("grids.clean[1]:")
    changed = json.loads(json.dumps(RECORD["grids"]))
    changed["clean"][1] += 1e-5 * abs(changed["clean"][1])
    assert not list(freeze.differences(RECORD["grids"], changed))
