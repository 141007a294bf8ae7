"""The page of a patch grid."""

from __future__ import annotations

from ..folder import ReportFolder
from ..parts import Cell, Number, Page, Picture, Section, Table, interval


def page(folder: ReportFolder) -> Page:
    """The page of ``cells.csv`` and the figures beside it."""
    rows = folder.rows("cells.csv")
    survived = [row for row in rows if row["survives"] == "True"]
    pairs = max((int(float(row["pairs"])) for row in rows), default=0)
    pictures = [
        Picture(
            source, f"Effect by block and position at {site}; greyed cells do not survive the control for many tests."
        )
        for site in dict.fromkeys(row["site"] for row in rows)
        if (source := folder.figure(f"patching_{site}.svg", f"patching_{site}.png")) is not None
    ]
    best = max(survived, key=lambda row: float(row["effect"]), default=None)
    finding = f"None of {len(rows)} cells survives the control for many tests with {pairs} pairs."
    if best is not None:
        finding = (
            f"{len(survived)} of {len(rows)} cells survive the control for many tests; the strongest is "
            f"{best['position']} at block {best['block']} ({best['direction']}), which carries {_effect(best)} of the "
            "difference."
        )
    header = ["direction", "site", "block", "position", "effect", "survives"]
    table = [
        [
            row["direction"], row["site"], Cell(row["block"], float(row["block"])), row["position"],
            Cell(_effect(row), float(row["effect"] or "nan")), row["survives"] == "True",
        ]
        for row in sorted(rows, key=lambda row: -float(row["effect"] or "-inf"))
    ]  # fmt: skip
    return Page(
        title="Activation patching",
        subtitle=f"{pairs} pairs, {len(rows)} cells",
        finding=finding,
        numbers=[Number(f"{len(survived)}", f"of {len(rows)}", "cells that survive")],
        opening=pictures[0] if pictures else None,
        sections=[
            Section("Which cells carry the difference?", [Table("Every cell, strongest first", header, table[:600])]),
            *([Section("More figures", pictures[1:])] if len(pictures) > 1 else []),
        ],
        links=[("cells.csv", "every cell, as a table")],
    )


def _effect(row: dict[str, str]) -> str:
    if not row["effect"]:
        return "-"
    low, high = (float(row[key]) if row.get(key) else None for key in ("low", "high"))
    return interval(float(row["effect"]), low, high)
