"""The recorded study, and what it says about each measure.

``record.json`` lies in the package.  It is what ``lvlm-lens selftest --out FILE`` wrote in its recorded run, without
the single trials; a figure or a consensus that uses a measure asks :func:`standing` and marks one that missed.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def load_record() -> dict[str, Any]:
    """The recorded study, as :func:`~lvlm_lens.selftest.study.run_study` returns it, without trials."""
    return json.loads(files(__package__).joinpath("record.json").read_text("utf-8"))


def standing(measure: str) -> str:
    """``reached``, ``missed`` or ``untested``: what the recorded study says of a measure.

    Args:
        measure: name of a measure, of a role (``perception``, ``semantics``, ``expression``: that of the measure
            behind it) or ``order_test``.

    Returns:
        ``missed`` where any target is missed at the study's largest sample size, ``reached`` where all are reached,
        ``untested`` for a measure, or a target, that the study did not test.
    """
    from ..measures.spec import HEADLINES

    return str(load_record()["standing"].get(HEADLINES.get(measure, measure), "untested"))


def trusted_measures() -> tuple[str, ...]:
    """Names of the measures that reached every target in the recorded study."""
    return tuple(name for name, word in load_record()["standing"].items() if word == "reached")
