"""The page of reproduced papers: one section a recipe, verdicts first."""

from __future__ import annotations

from typing import Any

from ..findings import of_reproduction
from ..folder import ReportFolder
from ..parts import Listing, Page, Picture, Section, Table, Text, interval


def page(folder: ReportFolder) -> Page:
    """The page of ``reproduced.json`` and the recipes' own folders."""
    data = folder.record("reproduced.json")
    verdicts = [
        [
            row["name"],
            row["verdict"]["claim"]["state"],
            row["verdict"]["claim"]["reason"],
            row["verdict"]["numbers"]["state"],
        ]
        for row in data["recipes"]
    ]
    header = ["paper", "claim", "why", "numbers"]
    first = data["recipes"][0] if data["recipes"] else {}
    sections = [Section("What came out?", [Table("Verdicts", header, verdicts)])]
    sections += [Section(row["title"], _recipe(folder, row)) for row in data["recipes"]]
    if data.get("failed"):
        lines = [f"{row['name']}: {row['error']}" for row in data["failed"]]
        sections.append(Section("What failed?", [Listing("Recipes that could not be run", lines, folded=False)]))
    return Page(
        title=f"Papers reproduced on {first.get('model', 'a model')}",
        subtitle=f"{len(data['recipes'])} papers",
        finding=of_reproduction(data),
        sections=sections,
        links=[("reproduced.json", "everything on this page, as JSON")],
    )


def _recipe(folder: ReportFolder, row: dict[str, Any]) -> list[Any]:
    table = [
        [r["quantity"], r["where"], interval(r["value"], r["low"], r["high"], 3), r["unit"], r["n"], r["source"]]
        for r in row["table"]
    ]
    pictures = []
    for name in row["figures"]:
        if not name.endswith(".png"):
            continue
        path = f"{row['name']}/{name}"
        source = folder.figure(path.removesuffix(".png") + ".svg", path)
        if source is not None:
            pictures.append(Picture(source, f"{row['title']}: {name.removesuffix('.png').replace('_', ' ')}"))
    notes = [*row["approximations"], *row["notes"]]
    return [
        Text(f"Claim: {row['claim']}"),
        Text(f"{row['verdict']['claim']['state'].capitalize()}: {row['verdict']['claim']['reason']}", lead=True),
        Table(
            "Ours beside theirs", ["quantity", "where", "value", "unit", "n", "source"], table, folded=len(table) > 8
        ),
        *pictures,
        *([Listing("Approximated, and notes of this run", notes)] if notes else []),
    ]
