"""Every family of the table: the battery on a tiny model of each, and the table for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import LensError
from ..models.checkpoints import KNOWN_BY
from ..models.families import FAMILIES
from ..models.loaded import LoadedModel
from ..models.tiny import TINY, tiny_model
from .check_anatomy import CheckReport, check_anatomy


def check_families(names: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """The whole battery on a tiny model of each family; one row per family, as ``lvlm-lens models --check`` prints.

    A family whose tiny model cannot even be built is a failed row, not an error.
    """
    rows = []
    for name in TINY if names is None else names:
        try:
            report = check_anatomy(LoadedModel(*tiny_model(name), name=f"tiny {name}"))
        except (LensError, ImportError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            report = CheckReport(name, failed={"the model": f"{type(error).__name__}: {error}"[:300]})
        rows.append({**report.to_dict(), "family": name})
    return rows


def family_rows() -> list[dict[str, Any]]:
    """The table of families for people: name, where its parts are, how attention flows, whether it has a tiny model."""
    return [
        {
            "family": name,
            "for example": KNOWN_BY.get(name, "-"),
            "decoder": row.decoder,
            "vision": row.vision,
            "projector": row.projector,
            "flow": sorted(row.flow),
            "checked": name in TINY,
        }
        for name, row in FAMILIES.items()
    ]
