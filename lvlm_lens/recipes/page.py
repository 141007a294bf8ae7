"""A recipe's result as Markdown: verdicts first, then the comparison table, then everything that limits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def cell(text: object) -> str:
    """Text that cannot break a Markdown table, nor become markup (data sets' and models' names are foreign)."""
    said = str(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
    return said.replace("<", "&lt;").replace(">", "&gt;")


def number(value: float | None) -> str:
    """Three significant digits, or a dash."""
    return "-" if value is None else f"{value:.4g}"


def table_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The comparison table."""
    lines = ["| quantity | where | value | 95 % interval | unit | n | source |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        inside = row["low"] is not None and row["high"] is not None
        interval = f"{number(row['low'])} to {number(row['high'])}" if inside else "-"
        items = "-" if row["n"] is None else str(row["n"])
        parts = (row["quantity"], row["where"], number(row["value"]), interval, row["unit"], items, row["source"])
        lines.append("| " + " | ".join(cell(part) for part in parts) + " |")
    return lines


def recipe_page(found: Mapping[str, Any]) -> str:
    """The page of one result (``RecipeResult.to_dict()`` with figures)."""
    verdict, data = found["verdict"], found["data"]
    lines = [
        f"# {cell(found['title'])} ({cell(found['source'])})",
        "",
        f"Claim: {cell(found['claim'])}",
        "",
        f"* **claim {verdict['claim']['state']}**: {cell(verdict['claim']['reason'])}",
        f"* **numbers {verdict['numbers']['state']}**: {cell(verdict['numbers']['reason'])}",
        "",
        f"Model {cell(found['model'])}; data {cell(data['name'])}: {data['samples']} samples, "
        f"{data['harmful']} harmful, "
        f"{data['harmless']} harmless" + (" (stand-in for the published files)." if data["stand_in"] else "."),
        "",
        *table_lines(found["table"]),
        "",
        *(f"![{name}]({name})" for name in found["figures"] if name.endswith(".png")),
        "",
    ]
    for title, items in (
        ("Published setting", [f"{key}: {value}" for key, value in found["setting"].items()]),
        ("Approximated", found["approximations"]),
        ("Not known to us", found["unknown"]),
        ("Of this run", found["notes"]),
    ):
        if items:
            lines += [f"## {title}", "", *(f"* {cell(item)}" for item in items), ""]
    return "\n".join(lines)


def summary_page(results: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, str]]) -> str:
    """One line per recipe."""
    lines = ["# Recipes", "", "| recipe | claim | why | numbers |", "|---|---|---|---|"]
    for found in results:
        claim, numbers = found["verdict"]["claim"], found["verdict"]["numbers"]
        parts = (f"{found['name']} ({found['source']})", claim["state"], claim["reason"], numbers["state"])
        lines.append("| " + " | ".join(cell(part) for part in parts) + " |")
    lines += [f"| {cell(row['name'])} | failed | {cell(row['error'])} | - |" for row in failed]
    return "\n".join([*lines, ""])
