"""The page of an adapter grid."""

from __future__ import annotations

from ..folder import ReportFolder
from ..parts import Cell, Number, Page, Picture, Section, Table, Text, interval, plain_rows


def page(folder: ReportFolder) -> Page:
    """The page of ``adapter.json``, ``adapter_cells.csv``, ``perception.csv`` and the figure beside them."""
    told = folder.record("adapter.json")
    rows = folder.rows("adapter_cells.csv")
    harmful = [row for row in rows if row["on"] == "harmful"]
    alive = [row for row in harmful if row["survives"] == "True"]
    picture = folder.figure("adapter_grid.svg", "adapter_grid.png")
    name, ends = str(told["record"]["name"]), told["endpoints"]
    best = max(alive, key=lambda row: float(row["effect"]), default=None)
    finding = f"No part of {name} survives the control for many tests on the harmful prompts."
    if best is not None:
        finding = (
            f"{len(alive)} of {len(harmful)} cells of {name} survive the control for many tests on harmful prompts; "
            f"strongest is block {best['block']} {best['span']} ({best['direction']}): {_effect(best)} of the way "
            "from the base to the trained model."
        )
    header = ["prompts", "direction", "site", "block", "span", "effect", "random part", "survives"]
    table = [
        [
            row["on"], row["direction"], row["site"], Cell(row["block"], float(row["block"])), row["span"],
            Cell(_effect(row), float(row["effect"] or "nan")), float(row.get("null_random") or "nan"),
            row["survives"] == "True",
        ]
        for row in sorted(rows, key=lambda row: -float(row["effect"] or "-inf"))
    ]  # fmt: skip
    perception = [
        [
            row["direction"], row["site"], Cell(row["block"], float(row["block"])), row["span"],
            interval(float(row["auroc"]), float(row["low"]), float(row["high"])),
            interval(float(row["change"]), float(row["change_low"]), float(row["change_high"]), sign=True),
        ]
        for row in folder.rows("perception.csv")
    ]  # fmt: skip
    exact = (
        f"Nothing on is the base model to {ends['base']:.1e} and all on is the trained model to {ends['trained']:.1e}, "
        f"in logits of {ends['prompts']} prompts against plain forwards of PEFT (they are {ends['apart']:.2g} apart)."
    )
    return Page(
        title="Adapter patching",
        subtitle=f"{name} on {told['meta']['model']}, {len(rows)} cells",
        finding=finding,
        numbers=[
            Number(f"{len(alive)}", f"of {len(harmful)}", "parts that survive on harmful prompts"),
            Number(
                f"{max(ends['base'], ends['trained']):.1e}", f"of {ends['apart']:.2g}", "from plain PEFT at both ends"
            ),
        ],
        opening=None if picture is None else Picture(picture, "The metric by block, switched on and switched off."),
        sections=[
            Section(
                "Which blocks carry what was trained?",
                [Text(exact), Table("Every cell, strongest first", header, table)],
            ),
            Section(
                "Does perception change?",
                [
                    Text(
                        "AUROC of a probe for harm, refitted in every cell, and its change from where the cell starts."
                    ),
                    Table(
                        "Every cell", ["direction", "site", "block", "span", "AUROC", "change"], perception, folded=True
                    ),
                ],
            ),
        ],
        origin=[("Run", plain_rows(told["meta"])), ("Adapter", plain_rows(told["record"]))],
        links=[("adapter_cells.csv", "every cell"), ("perception.csv", "the probe in every cell")],
    )


def _effect(row: dict[str, str]) -> str:
    if not row["effect"]:
        return "-"
    low, high = (float(row[key]) if row.get(key) else None for key in ("low", "high"))
    return interval(float(row["effect"]), low, high)
