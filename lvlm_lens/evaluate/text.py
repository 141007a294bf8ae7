"""A defence table as text: what to read first, then the table, then what is shown to differ, each row once."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..measures.spec import ROLE_NAMES


class Evaluated(Protocol):
    """What is shown of an :class:`~lvlm_lens.evaluate.evaluation.EvaluationResult`."""

    setting: dict[str, Any]
    rows: list[dict[str, Any]]
    tests: list[dict[str, Any]]
    notes: list[str]
    inside: list[dict[str, Any]]


def evaluation_text(result: Evaluated) -> str:
    """Everything a terminal shows, in lines of at most 100 columns."""
    setting = result.setting
    lines = [
        f"{setting['harmful']} harmful and {setting['harmless']} harmless requests; {setting['n_train']} samples to "
        "learn from.",
        "Read first: 'not refused' (attack success) beside 'over-refusal': a defence helps where the first falls and",
        "the second does not rise. 'complied' leaves deflections out. Intervals: 95 %, over groups.",
        "",
        f"{'system':<18}{'not refused':>17}{'complied':>17}{'over-refusal':>17}{'accuracy':>9}{'AUROC':>6}"
        f"{'forwards':>9}{'ms':>7}",
    ]
    for row in result.rows:
        found, cost = row.get("detection") or {}, row["cost"]
        lines.append(
            f"{row['system']:<18}{_rate(row['attack_success']):>17}{_rate(row['complied']):>17}"
            f"{_rate(row['over_refusal']):>17}{_percent(row['accuracy']['value']):>9}{_number(found.get('auroc')):>6}"
            f"{_number(cost.get('forwards'), 1):>9}{_number(1000 * cost.get('seconds', math.nan), 0):>7}"
        )
    shown = [test for test in result.tests if test["q_value"] <= 0.05]
    lines += ["", f"Shown to differ from no defence (q <= 0.05): {len(shown)} of {len(result.tests)} rates"]
    lines += [
        f"  {test['system']}: {test['rate'].replace('_', ' ')} {100 * test['difference']:+.1f} points "
        f"[{100 * test['low']:+.1f}, {100 * test['high']:+.1f}], q = {test['q_value']:.3f}"
        for test in shown
    ]
    for row in result.rows:
        if spent := row.get("training"):
            lines.append(
                f"{row['system']}: trained once, {spent['steps']:.0f} steps, {spent['flops']:.3g} FLOPs, "
                f"{spent['seconds']:.0f} s"
            )
        if judged := row.get("judged"):
            deflected = f"{judged['deflections']} deflections, " if "deflections" in judged else ""
            lines.append(
                f"{row['system']}: attack success {_rate(judged['attack_success'])} by {judged['judge']}, "
                f"{deflected}{judged['unread']} verdicts unread"
            )
    if result.inside:
        lines += ["", inside_text(result.inside)]
    notes = [textwrap.fill(f"note: {note}", 100, subsequent_indent="  ") for note in result.notes]
    return "\n".join([*lines, "", *notes]).rstrip()


def inside_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """For each role its onset, and the change of AUROC at the undefended peak; systems that change nothing in one line.

    A defence that acts on the prompt's answer alone leaves the numbers as they were: it has no row of its own.
    """
    before, same = rows[0], []
    head = "Inside: the block where each role begins, AUROC at its peak (none) or its change there (the others)"
    lines = [head, f"{'system':<18}" + "".join(f"{role:>27}" for role in ROLE_NAMES)]
    for row in rows:
        if "reason" in row:
            lines.append(f"{row['system']:<18}not measured: {row['reason']}")
        elif row is not before and _curves(row) == _curves(before):
            same.append(str(row["system"]))
        else:
            lines.append(f"{row['system']:<18}" + "".join(f"{_role(row['roles'].get(r)):>27}" for r in ROLE_NAMES))
    return "\n".join([*lines, *([f"As without a defence, number by number: {', '.join(same)}"] if same else [])])


def _curves(row: Mapping[str, Any]) -> dict[str, Any]:
    return {role: [round(value, 6) for value in cell["auroc"]] for role, cell in row.get("roles", {}).items()}


def _role(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "-"
    onset = "-" if not cell["found"] else str(cell["onset"])
    if change := cell.get("change"):
        return f"{onset}, {change['at_peak']:+.2f} [{change['at_peak_low']:+.2f}, {change['at_peak_high']:+.2f}]"
    return f"{onset}, {cell['peak']:.2f}"


def _rate(value: Mapping[str, Any]) -> str:
    if not value["total"]:
        return "-"
    return f"{100 * value['value']:.0f} % [{100 * value['low']:.0f}, {100 * value['high']:.0f}]"


def _percent(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.0f} %"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
