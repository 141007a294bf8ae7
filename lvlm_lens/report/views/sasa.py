"""The page of SASA's report."""

from __future__ import annotations

from ..folder import ReportFolder
from ..parts import Listing, Number, Page, Picture, Section, Table, Text, interval, plain_rows

_CAPTIONS = {
    "sasa_map": "Gain over the same probe without projection, for every pair of a safety block and a later block.",
    "sasa_controls": "SASA beside its controls; dashed: the same probe without projection.",
    "sasa_labels": "AUROC by training size with and without projection.",
    "sasa_patching": "Patch grids of the plain and of the projected network, and their difference.",
}


def page(folder: ReportFolder) -> Page:
    """The page of ``sasa.json``."""
    data = folder.record("sasa.json")
    setting = data["setting"]
    pictures = [
        Picture(source, caption)
        for name, caption in _CAPTIONS.items()
        if (source := folder.figure(f"{name}.svg", f"{name}.png")) is not None
    ]
    controls = []
    for row in data["controls"]:
        over = row.get("over_reference") or {}
        controls.append(
            [
                row["name"].replace("_", " "), interval(row["auroc"], row["low"], row["high"], 3),
                interval(over.get("gain"), over.get("low"), over.get("high"), 3, sign=True), row["meaning"],
            ]
        )  # fmt: skip
    rivals = [
        [
            row["meaning"], row["verdict"], f"{row['auroc']:.3f}", f"{row['rival_auroc']:.3f}",
            interval(row["value"], row["low"], row["high"], 3, sign=True),
            f"{row['rival_chose']} in {row['rival_chose_in']} of {row['splits']}",
        ]
        for row in data["contest"]
    ]  # fmt: skip
    header = ["system", "AUROC", "over no projection", "what it is"]
    return Page(
        title=f"SASA on {setting['model']}",
        subtitle=f"{setting['data']}: {setting['n_train']} training and {setting['n_test']} test items; safety block "
        f"{setting['safety_block']}, later block {setting['fused_block']} of {setting['n_blocks']}",
        finding=data["verdict"],
        numbers=[
            Number(
                f"{row['value']:+.3f}",
                f"[{row['low']:+.3f}, {row['high']:+.3f}] AUROC, {row['verdict']}",
                f"against {row['meaning']}",
            )
            for row in data["contest"]
        ],
        opening=pictures[1] if len(pictures) > 1 else None,
        sections=[
            Section(
                "Is it better than its rivals?",
                [
                    Text(
                        f"Every method chooses its blocks and the strength of its probe in the same way, and is fitted "
                        f"anew in each of {data['contest'][0]['splits']} splits; equivalent means within "
                        f"{setting['margin']:g} AUROC."
                    ),
                    Table(
                        "SASA and its rivals", ["against", "verdict", "SASA", "rival", "difference", "it chose"], rivals
                    ),
                ],
            ),
            Section("Is it the projection that helps?", [Table("SASA and its controls", header, controls)]),
            Section("Which blocks?", [pictures[0]] if pictures else [Text("No map was drawn.")]),
            Section("More figures", pictures[2:]),
            Section("What should a reader know?", [Listing("Notes", data["notes"], folded=False)]),
        ],
        origin=[("setting", plain_rows(setting))],
        links=[("sasa.json", "everything on this page, as JSON")],
    )
