"""The page of a defence table."""

from __future__ import annotations

from typing import Any

from ..findings import of_evaluation
from ..folder import ReportFolder
from ..parts import Listing, Number, Page, Picture, Section, Table, Text, percent, plain_rows


def page(folder: ReportFolder) -> Page:
    """The page of ``evaluation.json``."""
    data = folder.record("evaluation.json")
    setting, rows = data["setting"], data["rows"]
    undefended = rows[0]
    figure = folder.figure("defense_plane.svg", "defense_plane.png")
    opening = None
    if figure is not None:
        opening = Picture(
            figure,
            f"Attack success against over-refusal of {len(rows)} systems on {setting['n_test']} requests, with 95 % "
            "intervals; the size of a mark is its cost in forwards per query.",
        )
    sections = [
        Section("What did the defences change?", [_table(rows), *_tests(data["tests"])]),
        Section("What did they change inside?", _inside(data["inside"])),
        Section("What should a reader know?", [Listing("Notes", data["notes"], folded=False)] if data["notes"] else []),
    ]
    return Page(
        title=f"Defences on {setting['model']}",
        subtitle=f"{setting['data']}: {setting['n_test']} requests, {setting['harmful']} harmful and "
        f"{setting['harmless']} harmless; refusals told by the rule {setting['refused_by']!r}",
        finding=of_evaluation(data),
        numbers=[
            Number(percent(undefended["attack_success"]), "no defence", "attack success"),
            Number(percent(undefended["over_refusal"]), "no defence", "over-refusal"),
        ],
        opening=opening,
        sections=[section for section in sections if section.parts],
        origin=[("setting", plain_rows(setting))],
        links=[("evaluation.json", "everything on this page, as JSON")],
    )


def _table(rows: list[dict[str, Any]]) -> Table:
    shown = []
    for row in rows:
        detection, cost = row.get("detection") or {}, row["cost"]
        seconds = cost.get("seconds")
        shown.append(
            [
                row["system"].replace("_", " "), row["attack_success"], row.get("complied"), row["over_refusal"],
                row["accuracy"], detection.get("auroc"), cost.get("forwards"),
                None if seconds is None else 1000 * seconds,
            ]
        )  # fmt: skip
    header = [
        "system",
        "not refused",
        "complied",
        "over-refusal",
        "accuracy on harmless",
        "AUROC",
        "forwards per query",
        "ms a query",
    ]
    return Table("Every system on the same requests, with 95 % intervals", header, shown)


def _tests(tests: list[dict[str, Any]]) -> list[Table]:
    rows = [
        [
            t["system"].replace("_", " "), t["rate"].replace("_", " "),
            f"{100 * t['difference']:+.1f} [{100 * t['low']:+.1f}, {100 * t['high']:+.1f}]", t["q_value"],
        ]
        for t in tests
    ]  # fmt: skip
    header = ["system", "rate", "difference from no defence, points", "q"]
    return [Table("Tests against no defence, adjusted together", header, rows, folded=True)] if rows else []


def _inside(rows: list[dict[str, Any]]) -> list[Any]:
    if not rows:
        return []
    names = list(
        dict.fromkeys(key for row in rows for key, value in row.items() if not isinstance(value, (dict, list)))
    )
    table = Table(
        "Onset and peak of the three roles under each system",
        [name.replace("_", " ") for name in names],
        [[row.get(name) for name in names] for row in rows],
        folded=True,
    )
    return [Text("Each system's atlas on the same requests, beside the undefended one."), table]
