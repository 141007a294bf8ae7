"""The page of a training: what it cost, whether it learnt, and what its audits found."""

from __future__ import annotations

from ..findings import of_training
from ..folder import ReportFolder
from ..parts import Number, Page, Section, Table, plain_rows


def page(folder: ReportFolder) -> Page:
    """The page of ``training.json``."""
    data = folder.record("training.json")
    method, cost, audits = data["method"], data["cost"], data["audits"]
    log = [[entry.get("step"), entry["loss"]] for entry in data["log"] if "loss" in entry]
    return Page(
        title=str(method["title"]),
        subtitle=f"{cost['steps']} steps, {cost['flops']:.3g} FLOPs, {cost['seconds']:.0f} s",
        finding=of_training(data),
        numbers=[Number(f"{log[-1][1]:.3f}", f"from {log[0][1]:.3f}", "loss at the end")] if log else [],
        sections=[
            Section("Did it learn?", [Table("Loss by step", ["step", "loss"], log, folded=len(log) > 12)]),
            Section(
                "Does it act on a fresh base?",
                [Table("Audits after the training", ["audit", "found"], plain_rows(audits["after"]))],
            ),
        ],
        origin=[("method", plain_rows(method)), ("cost", plain_rows(cost))],
        links=[("training.json", "everything on this page, as JSON")],
    )
