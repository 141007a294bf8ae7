"""The roles: three curves with what they have to beat, the order of onsets, the quadrants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..locate.locating import locate_roles, perceived_note
from ..locate.roles import LayerRoles
from ..measures.linear_probe import LinearProbe
from ..progress import stage
from ..storage.commit import write_atomic
from ..storage.plain import plain
from .drawing import draw_figures, drawing_work
from .exploring import explore_record
from .inputs import naming_left_out
from .reading import locating_work
from .stage import Plan, Run, Stage
from .summary import Block, Line, percent, table
from .work import Work


class Locating(Stage):
    """Probes and lens over the evidence; seconds to minutes of arithmetic from one seed, done anew each time."""

    name = "locate"
    parts = ("roles", "order_test", "quadrants", "perceived_note", "trajectories")

    def cost(self, plan: Plan) -> Mapping[str, Work]:
        """Probes of each block, with null, twin and baselines, and the figures of the roles."""
        readers = (1 + int(plan.backbone)) if plan.in_words else 0
        return {
            "locating": locating_work(plan.kept, plan.settings.twin, plan.joint, readers),
            "figures": drawing_work(plan.joint),
        }

    def run(self, run: Run) -> Mapping[str, Any]:
        """Fit and test."""
        settings, read = run.settings, run.found["reading"]
        with stage("locating"), naming_left_out(run.read):
            probe = LinearProbe(
                folds=settings.folds, permutations=settings.permutations, replicates=settings.replicates
            )
            located = locate_roles(read.evidence, read.twin, probe=probe, seed=run.seed)
        run.found[self.name] = located
        run.curves |= located.curves
        run.notes[:0] = located.notes
        return {
            "roles": located.roles.to_dict(),
            "order_test": plain(located.order_test),
            "quadrants": list(located.quadrants),
            "perceived_note": perceived_note(located.roles.perception),
            "trajectories": located.trajectories,
        }

    def figures(self, run: Run) -> list[dict[str, str]]:
        """Atlas, consensus, roles, quadrants, planes, trajectory; and what the page's linked views need."""
        read, located = run.found["reading"], run.found[self.name]
        explored = explore_record(run.model, read.evidence, located, run.seed)
        write_atomic(run.folder / "explore.json", json.dumps(explored, separators=(",", ":"), allow_nan=False))
        return draw_figures(
            run.folder, run.model, read.evidence, located, read.backbone, run.progress, run.found["measures"]
        )

    def summary(self, record: Mapping[str, Any]) -> list[Block]:
        """Roles, their order, and the quadrants."""
        rows = []
        for role in LayerRoles.from_dict(record["roles"]):
            if role.found and role.range is not None:
                missing = f" (not compared with {', '.join(role.missing)})" if role.missing else ""
                rows.append(
                    (
                        role.name,
                        f"{role.range[0]}-{role.range[1]}",
                        f"{role.onset} [{role.onset_low}, {role.onset_high}]{role.at_strength}",
                        str(role.peak),
                        f"{role.value:.3f} [{role.low:.3f}, {role.high:.3f}]",
                        f"found{missing}",
                    )
                )
            else:
                value = "-" if role.value is None else f"{role.value:.3f}"
                rows.append((role.name, "-", "-", "-", value, f"{role.absence}: {role.reason}"))
        columns = ("role", "blocks", "onset [95 %]", "peak", "value [95 %]", "what it is")
        order = record["order_test"]
        p_value = "" if order.get("p_value") is None else f" (p = {order['p_value']:.4f})"
        apart: list[Block] = []
        if order.get("told") and order.get("difference") is not None:
            apart = [
                Line(
                    f"Onset of {order['second']} less that of {order['first']}: {order['difference']:+.1f} blocks "
                    f"[{order['low']:+.1f}, {order['high']:+.1f}]"
                )
            ]
        return [
            table("Layer roles", columns, rows),
            *apart,
            Line(f"Order: {order['conclusion']}{p_value}"),
            _quadrants(record),
        ]


def _quadrants(record: Mapping[str, Any]) -> Block:
    columns = ["quadrant", "items", "perceived", "refused", "of these not refused, above harmless"]
    backbone = record.get("backbone")
    in_words: dict[str, Any] = {}
    if backbone is not None:
        which = "backbone" if "backbone" in backbone else "lvlm_in_words"
        columns.append("backbone refuses, in words" if which == "backbone" else "refused, in words")
        in_words = {row["quadrant"]: row["refused"] for row in backbone[which]["quadrants"]}
    rows = []
    for row in record["quadrants"]:
        missed = row.get("perceived_not_refused_excess") if row["quadrant"].endswith("U") else None
        cells = [row["quadrant"], str(row["n"]), percent(row["perceived"]), percent(row["refused"])]
        cells.append("-" if missed is None else percent(missed))
        if backbone is not None:
            cells.append(percent(in_words[row["quadrant"]]) if row["quadrant"] in in_words else "-")
        rows.append(cells)
    note = record.get("perceived_note")
    caption = f"perceived: {note}" if note else ""
    title = "By quadrant (picture, words, together: S safe, U unsafe)"
    return table(title, columns, rows, numbers=("items",), caption=caption)
