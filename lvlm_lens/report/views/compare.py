"""The page of a comparison of runs."""

from __future__ import annotations

from ..findings import of_comparison
from ..folder import ReportFolder
from ..parts import Listing, Page, Picture, Section, Table, interval


def page(folder: ReportFolder) -> Page:
    """The page of ``comparison.json``."""
    data = folder.record("comparison.json")
    names = [run["name"] for run in data["runs"]]
    figure = folder.figure("comparison.svg", "comparison.png")
    rows = []
    for test in data["tests"]:
        tested = "reason" not in test
        value = interval(test["difference"], test["low"], test["high"], 3, sign=True) if tested else "-"
        rows.append(
            [
                f"{test['second']} - {test['first']}", test["role"], test["what"], value,
                test["q_value"] if tested else None, "" if tested else f"not tested: {test['reason']}",
            ]
        )  # fmt: skip
    return Page(
        title="Runs side by side",
        subtitle=" and ".join(names),
        finding=of_comparison(data),
        opening=None
        if figure is None
        else Picture(figure, "Roles of the runs over relative depth, with 95 % intervals."),
        sections=[
            Section(
                "Which differences are shown?",
                [Table("Every test", ["difference", "role", "what", "value [95 %]", "q", "note"], rows)],
            ),
            *(
                [Section("What should a reader know?", [Listing("Notes", data["notes"], folded=False)])]
                if data["notes"]
                else []
            ),
        ],
        links=[("comparison.json", "everything on this page, as JSON")],
    )
