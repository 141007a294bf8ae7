"""The page of a patch grid."""

from __future__ import annotations

from ..findings import effect_text, of_cells
from ..folder import ReportFolder
from ..parts import Cell, Number, Page, Picture, Section, Table


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
    header = ["direction", "site", "block", "position", "effect", "survives"]
    table = [
        [
            row["direction"], row["site"], Cell(row["block"], float(row["block"])), row["position"],
            Cell(effect_text(row), float(row["effect"] or "nan")), row["survives"] == "True",
        ]
        for row in sorted(rows, key=lambda row: -float(row["effect"] or "-inf"))
    ]  # fmt: skip
    return Page(
        title="Activation patching",
        subtitle=f"{pairs} pairs, {len(rows)} cells",
        finding=of_cells(rows),
        numbers=[Number(f"{len(survived)}", f"of {len(rows)}", "cells that survive")],
        opening=pictures[0] if pictures else None,
        sections=[
            Section("Which cells carry the difference?", [Table("Every cell, strongest first", header, table[:600])]),
            *([Section("More figures", pictures[1:])] if len(pictures) > 1 else []),
        ],
        links=[("cells.csv", "every cell, as a table")],
    )
