"""What a folder belongs to, as plain JSON, and the difference in words where it is another's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..errors import RunFolderError


def fingerprint(identity: Any) -> str:
    """SHA-256 of a plain record, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Fields in which two records differ: ``model.dtype: 'float32' there, 'bfloat16' now``."""
    found: list[str] = []
    for name in [*stored, *(name for name in asked if name not in stored)]:
        ours, theirs = stored.get(name), asked.get(name)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            found += differences(ours, theirs, f"{prefix}{name}.")
        elif ours != theirs:
            found.append(f"{prefix}{name}: {_short(ours)} there, {_short(theirs)} now")
    return found


def require(place: str, stored: Mapping[str, Any], asked: Mapping[str, Any], what: str, hint: str) -> None:
    """Raise :class:`RunFolderError` with every differing field unless ``place`` belongs to what is asked for.

    Args:
        place: as printed; stored: its identity; asked: the identity of what is run now (made plain here).
        what: of the other, e.g. ``run`` or ``grid``; hint: what to do.
    """
    found = differences(stored, json.loads(json.dumps(asked, default=str)))
    if found:
        listed = "\n  ".join(found[:12])
        raise RunFolderError(f"{place} belongs to another {what}:\n  {listed}\n{hint}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:70]}... ({len(text)} characters)"
