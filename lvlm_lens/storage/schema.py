"""JSON schemas of typed records: made from the types, so that what is published is what the code is checked against.

>>> class Share(TypedDict):
...     "A share with its interval."
...     value: float | None
>>> json_schema(Share)["properties"]["value"]
{'anyOf': [{'type': 'number'}, {'type': 'null'}]}
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", dict: "object",
          list: "array"}  # fmt: skip


def json_schema(kind: Any) -> dict[str, Any]:
    """The schema of a type: ``TypedDict``, ``list``, ``dict``, unions, ``Literal``, plain types, ``Any``.

    Unknown keys are allowed, so that a record of a later version can still be read.
    """
    if kind is Any:
        return {}
    if typing.is_typeddict(kind):
        hints = get_type_hints(kind, include_extras=True)  # kind.__required_keys__ does not see annotations as text
        schema: dict[str, Any] = {"type": "object", "properties": {name: json_schema(t) for name, t in hints.items()}}
        schema["required"] = sorted(name for name, t in hints.items() if get_origin(t) is not NotRequired)
        if kind.__doc__:
            schema = {"title": kind.__name__, "description": " ".join(kind.__doc__.split()), **schema}
        return schema
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Required, NotRequired):
        return json_schema(inner[0])
    if origin in (Union, types.UnionType):
        return {"anyOf": [json_schema(one) for one in inner]}
    if origin is Literal:
        return {"enum": list(inner)}
    if origin is list:
        return {"type": "array", "items": json_schema(inner[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": json_schema(inner[1])}
    if kind in _NAMES:
        return {"type": _NAMES[kind]}
    raise TypeError(f"no JSON schema is known for {kind!r}")


def problems(value: Any, schema: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """What in a value is not as a schema of :func:`json_schema` says, each as ``place is ...``."""
    if "anyOf" in schema:
        tried = [list(problems(value, one, place)) for one in schema["anyOf"]]
        if all(tried):
            yield from min(tried, key=lambda found: (len(found), found[0].count(".") == place.count(".")))
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place} is {value!r}, not one of {schema['enum']}"
    kind = schema.get("type")
    if kind is not None and not _is(value, kind):
        yield f"{place} is a {type(value).__name__}, not a {kind}"
        return
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{place}{'.' if place else ''}{name} is missing"
    for name, part in schema.get("properties", {}).items():
        if name in value:
            yield from problems(value[name], part, f"{place}{'.' if place else ''}{name}")
    if "items" in schema:
        for number, item in enumerate(value):
            yield from problems(item, schema["items"], f"{place}[{number}]")
    if "additionalProperties" in schema:
        for name, item in value.items():
            yield from problems(item, schema["additionalProperties"], f"{place}.{name}")


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    kinds: dict[str, Any] = {name: one for one, name in _NAMES.items()} | {"number": (int, float)}
    return isinstance(value, kinds[kind])
