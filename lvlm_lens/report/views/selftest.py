"""The page of a study on constructed models."""

from __future__ import annotations

from ..findings import of_selftest
from ..folder import ReportFolder
from ..parts import Page, Section, Table, plain_rows


def page(folder: ReportFolder, name: str = "selftest.json") -> Page:
    """The page of what ``lvlm-lens selftest --out FILE`` wrote: each measure's hits and false alarms."""
    data = folder.record(name)
    rows = data["measures"]
    names = list(dict.fromkeys(key for row in rows for key, value in row.items() if _shown(value)))
    return Page(
        title="Models whose answer is known",
        subtitle=f"{data.get('models', '?')} constructed models, seed {data.get('seed', '?')}",
        finding=of_selftest(data),
        sections=[
            Section(
                "How often is the planted block found?",
                [
                    Table(
                        "By measure",
                        [n.replace("_", " ") for n in names],
                        [[row.get(n) for n in names] for row in rows],
                    )
                ],
            )
        ],
        origin=[("environment", plain_rows(data["environment"]))] if "environment" in data else [],
        links=[(name, "everything on this page, as JSON")],
    )


def _shown(value: object) -> bool:
    """Plain values and rates with an interval fit a cell."""
    return not isinstance(value, (dict, list)) or (isinstance(value, dict) and {"value", "low", "high"} <= set(value))
