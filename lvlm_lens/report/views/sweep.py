"""The page of a sweep or of locating: the finding, the linked views, and a section a question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import RunFolderError
from ...locate.consensus import votes_text
from ...locate.roles import Role
from ...resultschema import read_result
from ..findings import ROLE_WORDS, capital, of_sweep
from ..folder import ReportFolder
from ..parts import Cell, Explorer, Listing, Number, Page, Picture, Section, Table, Text, interval, percent, plain_rows

SCHEMA = "lvlm-lens/sweep/1"
_SECTION_OF = {
    "measures": ("consensus",),
    "perception": ("perception", "strip", "robustness"),
    "semantics": ("semantics",),
    "expression": ("expression", "trajectory"),
    "behaviour": ("quadrants",),
    "causal": ("patching", "patching_picture", "heads", "head_map", "knockout_flow", "flow"),
    "sasa": ("sasa_map", "sasa_controls", "sasa_labels", "sasa_patching"),
    "defenses": ("defense_plane",),
}
"""Which figures stand under which question; the rest stand at the end."""


def page(folder: ReportFolder) -> Page:
    """The page of a sweep."""
    file = folder.file("result.json")
    if file is None:
        raise RunFolderError(f"{str(folder.path)!r} holds no result.json")
    data = read_result(file, SCHEMA)
    model, items = data["model"], data["dataset"]
    pictures = {
        row["name"]: Picture(source, row["caption"])
        for row in data["figures"]
        if (source := folder.figure(row.get("svg", row["png"]), row["png"])) is not None
    }
    opening = pictures.pop("atlas", None)
    explored = folder.json("explore.json")
    taken = {name for names in _SECTION_OF.values() for name in names}

    def drawn(section: str) -> list[Picture]:
        return [pictures[name] for name in _SECTION_OF[section] if name in pictures]

    sections = [
        Section("Look inside, block by block", [Explorer()]) if explored is not None else None,
        Section("Where does it see danger?", [_role_text(data, "perception"), *drawn("perception")]),
        Section(
            "Where does it understand picture and words together?",
            [_role_text(data, "semantics"), *drawn("semantics"), Text(f"Order: {data['order_test']['conclusion']}.")],
        ),
        Section("Where is the refusal written?", [_role_text(data, "expression"), *drawn("expression")]),
        Section("What does it perceive and not refuse?", [*_quadrants(data), *drawn("behaviour")]),
        Section("Which measures agree?", [*drawn("measures"), *_measures(data)]),
        Section("Does it cause the refusal?", [*_causal(data["causal"]), *drawn("causal")]),
        Section("Does SASA help here?", [*_sasa(data["sasa"]), *drawn("sasa")]),
        Section("What did the defences change?", [*_defenses(data["defenses"]), *drawn("defenses")]),
    ]
    rest = [picture for name, picture in pictures.items() if name not in taken]
    if rest:
        sections.append(Section("More figures", rest))
    sections.append(Section("What was left out?", _left_out(data)))
    return Page(
        title=f"Safety atlas of {model['name']}",
        subtitle=f"{items['name']}: {items['samples']} items, {items['harmful']} harmful and {items['harmless']} "
        f"harmless; {model['blocks']} decoder blocks of width {model['d_model']}",
        finding=of_sweep(data),
        numbers=_numbers(data),
        opening=opening,
        sections=[section for section in sections if section is not None and section.parts],
        origin=[(part, plain_rows(data[part])) for part in ("model", "environment", "config", "timings")],
        links=[
            (name, what)
            for name, what in (
                ("result.json", "everything on this page, as JSON"),
                ("curves.parquet", "every curve, as a table"),
                ("explore.json", "items with scores, block by block"),
            )
            if folder.file(name) is not None
        ],
        data=None if explored is None else _interactive(data, explored),
    )


def _numbers(data: Mapping[str, Any]) -> list[Number]:
    found = []
    perception = data["roles"]["perception"]
    if perception.get("value") is not None:
        bars = {name: beaten[0] for name, beaten in (perception.get("beaten") or {}).items()}
        strongest = max(bars, key=lambda name: bars[name]) if bars else None
        against = f"; strongest baseline {strongest.replace('_', ' ')} {bars[strongest]:.2f}" if strongest else ""
        found.append(
            Number(
                f"{perception['value']:.2f}",
                f"[{perception['low']:.2f}, {perception['high']:.2f}]{against}",
                "AUROC of the harm probe at its best block",
            )
        )
    harmful = [row for row in data["quadrants"] if row["quadrant"].endswith("U")]
    if harmful:
        main = max(harmful, key=lambda row: row["n"])
        found.append(_rate(main["refused"], f"{main['n']} harmful items refused ({quadrant_words(main['quadrant'])})"))
    sasa = data["sasa"]
    if sasa["done"]:
        found += [
            Number(
                f"{row['value']:+.3f}",
                f"[{row['low']:+.3f}, {row['high']:+.3f}] AUROC, {row['verdict']}",
                "SASA against the same probe without projection",
            )
            for row in sasa.get("contest", ())  # runs of before the contest have none
            if row["rival"] == "no_projection"
        ]
    return found


def _rate(rate: Mapping[str, Any], label: str) -> Number:
    value, _, rest = percent(rate).partition(" [")
    return Number(value, f"[{rest}" if rest else "", label)


def _role_text(data: Mapping[str, Any], name: str) -> Text:
    role = data["roles"].get(name)
    if not role:
        return Text(f"{name.capitalize()} was not measured.", lead=True)
    if not role["found"]:
        return Text(f"{name.capitalize()}: {Role.from_dict(role).absence}. {capital(role['reason'])}.", lead=True)
    beaten = ", ".join(f"{key.replace('_', ' ')} {value[0]:.2f}" for key, value in role["beaten"].items())
    return Text(
        f"{name.capitalize()} begins in block {role['onset']} [{role['onset_low']}, {role['onset_high']}]"
        f"{Role.from_dict(role).at_strength} and is "
        f"highest in block {role['peak']}: {interval(role['value'], role['low'], role['high'])} AUROC. "
        f"Beaten there: {beaten}.",
        lead=True,
    )


EMPTY = {"value": None, "low": None, "high": None}
_QUADRANT_WORDS = {"S": "safe", "U": "unsafe", "?": "unknown"}


def quadrant_words(name: str) -> str:
    """``SSU`` as words: picture, text, and both together."""
    parts = [_QUADRANT_WORDS.get(letter, letter) for letter in name]
    if len(parts) != 3:
        return name
    return f"picture {parts[0]}, words {parts[1]}, together {parts[2]}"


def _quadrants(data: Mapping[str, Any]) -> list[Any]:
    rows = [
        [
            Cell(quadrant_words(r["quadrant"]), r["quadrant"]),
            r["n"],
            r["perceived"],
            r["refused"],
            r.get("perceived_not_refused_excess", r["perceived_not_refused"]) if r["quadrant"].endswith("U") else EMPTY,
        ]
        for r in data["quadrants"]
    ]
    note = data.get("perceived_note")
    table = Table(
        "Share of items that the probe perceives, that the model refuses, and that are perceived and not refused",
        ["items", "n", "perceived", "refused", "perceived and not refused, above the harmless items"],
        rows,
    )
    return [table, *([Text(f"Perceived: {note}")] if note else [])]


def _measures(data: Mapping[str, Any]) -> list[Table]:
    rows = []
    for name, row in data["measures"].items():
        found = row.get("finding")
        if not row["done"]:
            says = row.get("reason", "not done")
        elif not found:
            says = "describes, decides no role"
        elif found["found"]:
            says = f"from block {found['onset']} [{found['onset_low']}, {found['onset_high']}], peak {found['peak']}"
        else:
            says = f"{Role.from_dict(found).absence}: {found['reason']}"
        rows.append([name.replace("_", " "), row["role"] or "-", says, row["standing"], row["source"]])
    agreed = []
    for name, c in data["consensus"].items():
        where = f"from block {c['onset']} [{c['onset_low']}, {c['onset_high']}]" if c["found"] else c["reason"]
        agreed.append([name, where, votes_text(c)])
    return [
        Table("Consensus of the counted measures", ["role", "where", "counted measures that find it"], agreed),
        Table(
            "Every measure, and whether it reaches its targets on models whose answer is known",
            ["measure", "role", "says", "on known models", "source"],
            rows,
            folded=len(rows) > 12,
        ),
    ]


def _causal(causal: Mapping[str, Any]) -> list[Any]:
    if not causal["done"]:
        return [Text(f"Patching was not done: {causal['reason']}")]
    rows = []
    for direction, best in causal["strongest"].items():
        place = "nothing survives" if best is None else f"{best['position']}, block {best['block']}"
        effect = "-" if best is None else interval(best["effect"], best["low"], best["high"])
        rows.append([direction, place, effect])
    check = causal["verification"]
    survived = f"{causal['cells_surviving']} of {causal['cells']} cells are above 0 and beat every null"
    checked = (
        ""
        if not check
        else f" {check['cells']} cells were run again by plain forwards; largest difference "
        + (f"{check['max_abs_diff']:.2g}.")
    )
    return [
        Text(f"{causal['pairs']} pairs were patched, both ways; {survived}.{checked}", lead=True),
        Table("Strongest cell that survives, by direction", ["direction", "cell", "share of the difference"], rows),
    ]


def _sasa(sasa: Mapping[str, Any]) -> list[Any]:
    return [Text(sasa["verdict"] if sasa["done"] else f"SASA was not measured: {sasa['reason']}", lead=sasa["done"])]


def _defenses(defenses: Mapping[str, Any]) -> list[Any]:
    if not defenses["done"]:
        return [Text(f"No defence was tried: {defenses['reason']}")]
    keys = {"attack_success": "not refused", "complied": "complied", "over_refusal": "over-refusal"}
    shown = {key: words for key, words in keys.items() if key in defenses["rows"][0]}
    rows = [[row["system"].replace("_", " "), *(row[key] for key in shown)] for row in defenses["rows"]]
    left_out = [Text(f"{reason}.") for reason in defenses.get("left_out", ())]
    return [Table("A first look at defences", ["system", *shown.values()], rows), *left_out]


def _left_out(data: Mapping[str, Any]) -> list[Any]:
    problems = data["dataset"]["problem_list"]
    parts: list[Any] = [Text(note) for note in data["notes"]]
    if problems:
        parts.append(Listing(f"{len(problems)} records left out", problems[:500]))
    elif not parts:
        parts.append(Text("No record was left out."))
    return parts


def _interactive(data: Mapping[str, Any], explored: Mapping[str, Any]) -> dict[str, Any]:
    """What the page's script draws: curves, items and the patch grid over one block axis."""
    curves = [
        {
            "name": row["name"],
            "blocks": row["blocks"],
            "value": row["value"],
            "low": row["low"],
            "high": row["high"],
            "null": row["null"],
            "baselines": {
                name: value["value"] if isinstance(value["value"], list) else [value["value"]] * len(row["blocks"])
                for name, value in row["baselines"].items()
            },
        }
        for row in data["curves"]
        if row["name"] in ROLE_WORDS
    ]
    roles = {
        name: {key: role[key] for key in ("found", "onset", "onset_low", "onset_high")}
        for name, role in data["roles"].items()
        if role
    }
    causal = data["causal"]
    cells = causal["cells_table"] if causal["done"] else []
    return {
        "depth": data["model"]["blocks"],
        "curves": curves,
        "roles": roles,
        "cells": [
            {key: row.get(key) for key in ("direction", "block", "position", "effect", "low", "high", "survives")}
            | {"adjusted": row.get("p_adjusted", row.get("q_value"))}
            for row in cells
        ],
        "explore": explored,
    }
