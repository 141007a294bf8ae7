"""A result that is cut off, edited or a stranger's is refused with the part named, by everyone who opens it."""

import json

import pytest

from lvlm_lens.cli import main
from lvlm_lens.errors import RunFolderError
from lvlm_lens.sweep import SCHEMA, SweepResult

ROLE = {
    "name": "perception", "found": True, "onset": 1, "onset_low": 1, "onset_high": 1, "onset_at": 0.5, "peak": 2,
    "range": [1, 2], "plateau": [1, 2], "value": 0.9, "low": 0.8, "high": 0.95, "beaten": {"null": [0.6, 0.2]},
    "depth": 3,
}  # fmt: skip
CURVE = {"name": "perception", "blocks": [0, 1, 2], "value": [0.5, 0.8, 0.9], "low": [0.4, 0.7, 0.8],
         "high": [0.6, 0.9, 0.95], "unit": "AUROC", "n": 40}  # fmt: skip


def whole():
    """A record of the least that a sweep writes."""
    lost = {"found": False, "reason": "flat"}
    return {
        "schema": SCHEMA,
        "model": {"name": "m", "blocks": 3, "weights_hash": "w"},
        "dataset": {"name": "d", "hash": "h", "samples": 40, "harmful": 20, "harmless": 20, "problem_list": []},
        "config": {"seed": 0, "replicates": 100, "positions": "last", "limit": None},
        "curves": [CURVE, {**CURVE, "name": "expression"}],
        "roles": {"perception": ROLE, **{name: {"name": name, **lost} for name in ("semantics", "expression")}},
        "order_test": {"conclusion": "not tested"}, "quadrants": [], "measures": {}, "consensus": {},
        "causal": {"done": False, "reason": "no"}, "sasa": {"done": False, "reason": "no"},
        "defenses": {"done": False, "reason": "no"}, "notes": [], "figures": [], "environment": {}, "timings": {},
    }  # fmt: skip


def put(folder, data):
    folder.mkdir(exist_ok=True)
    (folder / "result.json").write_text(data if isinstance(data, str) else json.dumps(data))
    return folder


def changed(path, value):
    data = json.loads(json.dumps(whole()))
    *way, last = path
    part = data
    for key in way:
        part = part[key]
    if value is KeyError:
        del part[last]
    else:
        part[last] = value
    return data


DAMAGE = [
    (changed(["roles"], KeyError), "roles"),
    (changed(["roles", "semantics"], KeyError), "roles"),
    (changed(["roles", "perception", "onset"], "x"), "roles"),
    (changed(["roles", "perception"], [1]), "roles"),
    (changed(["curves"], {}), "curves"),
    (changed(["curves", 0, "value"], ["a", "b", "c"]), r"curves\[0\]"),
    (changed(["curves", 0, "blocks"], [0, 2, 1]), r"curves\[0\]"),
    (changed(["curves", 1, "value"], [1.0]), r"curves\[1\]"),
    (changed(["model", "blocks"], "12"), r"model\.blocks"),
    (changed(["model", "blocks"], 0), r"model\.blocks"),
    (changed(["dataset", "hash"], KeyError), r"dataset\.hash"),
    (changed(["curves", 0, "low"], [float("nan")] * 3), "NaN"),
    ("[1, 2]", "schema"),
    ("{", "readable"),
    ("[" * 100_000, "readable"),
]


@pytest.mark.parametrize(("data", "part"), DAMAGE, ids=range(len(DAMAGE)))
def test_a_damaged_part_is_named(tmp_path, data, part):
    with pytest.raises(RunFolderError, match=part):
        SweepResult.load(put(tmp_path / "run", data))


def test_compare_says_which_run_is_damaged(tmp_path, capsys):
    good, bad = put(tmp_path / "good", whole()), put(tmp_path / "bad", changed(["roles"], KeyError))
    assert SweepResult.load(good).roles.perception.found
    assert main(["compare", str(good), str(bad), "--out", str(tmp_path / "out")]) == 8
    assert "bad" in capsys.readouterr().err
    other = put(tmp_path / "other", whole())
    (other / "measures").mkdir()
    (other / "measures" / "roles.safetensors").write_bytes(b"\x00" * 40)
    assert main(["compare", str(good), str(other), "--out", str(tmp_path / "out")]) == 3
    assert "roles.safetensors" in capsys.readouterr().err
