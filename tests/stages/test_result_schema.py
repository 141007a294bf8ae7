"""The published schema of a result is a valid one, holds for a real result, and says what our own check says."""

import copy
import random
from typing import Any, TypedDict

import pytest

from lvlm_lens.stages.records import result_schema
from lvlm_lens.storage.plain import plain
from lvlm_lens.storage.schema import json_schema, problems

jsonschema = pytest.importorskip("jsonschema")


def test_the_schema_is_valid_and_the_committed_result_keeps_it(committed_result):
    schema = result_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert not list(jsonschema.Draft202012Validator(schema).iter_errors(committed_result))
    assert not list(problems(committed_result, schema))
    described = [name for name, part in schema["properties"].items() if "description" in str(part)]
    assert set(described) >= {"model", "dataset", "curves", "roles", "causal", "sasa", "defenses", "figures"}


def places(value: Any, way: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for key, item in inner for place in places(item, (*way, key)))]


def test_our_check_agrees_with_the_library_on_damaged_records(committed_result):
    """Hundreds of records, each with one part replaced or taken out: both say the same of every one."""
    schema = result_schema()
    library = jsonschema.Draft202012Validator(schema)
    short = copy.deepcopy(committed_result)
    short["curves"], short["causal"] = short["curves"][:1], {"done": False, "reason": "left out"}
    kept = ("seed", "replicates", "positions", "limit")
    short["environment"] = short["config"] = {key: short["config"][key] for key in kept}
    chance = random.Random(0)
    every = [place for place in places(short) if place]
    seen = set()
    for place in chance.sample(every, 400):
        damaged = copy.deepcopy(short)
        part = damaged
        for key in place[:-1]:
            part = part[key]
        if chance.random() < 0.3:
            del part[place[-1]]
        else:
            part[place[-1]] = chance.choice(["x", 7, 0.5, True, None, [], {}])
        wrong = bool(list(library.iter_errors(damaged)))
        seen.add(wrong)
        assert wrong == bool(list(problems(damaged, schema))), place
    assert seen == {True, False}


def test_schemas_of_types():
    class Inner(TypedDict):
        """A pair."""

        a: int
        b: list[float | None]

    schema = json_schema(Inner)
    assert schema["required"] == ["a", "b"] and schema["description"] == "A pair."
    assert list(problems({"a": True, "b": []}, schema)) == ["a is a bool, not a integer"]
    assert next(problems({"b": [1, None, "x"]}, schema)) == "a is missing"
    assert not list(problems({"a": 1, "b": [1, None, 2.5], "later": "ok"}, schema))
    with pytest.raises(TypeError, match="no JSON schema"):
        json_schema(complex)


def test_plain_values_of_every_kind():
    import dataclasses

    import numpy as np

    @dataclasses.dataclass
    class Row:
        x: float
        y: tuple[int, ...]

    given = {"a": np.float32("nan"), 1: np.array([[1.0, np.inf]]), "row": Row(0.5, (1, 2)), "flag": np.bool_(True)}
    assert plain(given) == {"a": None, "1": [[1.0, None]], "row": {"x": 0.5, "y": [1, 2]}, "flag": True}
