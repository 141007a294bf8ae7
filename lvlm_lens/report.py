"""A finished run as one self-contained HTML page: tables, figures and where every number came from.

Text from data sets and models is escaped; figures are embedded; nothing is fetched.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .locate.consensus import votes_text
from .locate.roles import Role
from .runfolder import write_atomic
from .sweep import SweepResult

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2.2rem}
table{border-collapse:collapse;font-size:.88rem}th,td{padding:.3rem .8rem .3rem 0;text-align:left;vertical-align:top;
border-bottom:1px solid #e4e4e4}figure{margin:1.5rem 0}img{max-width:100%}figcaption{font-size:.85rem;color:#555}
footer{margin-top:3rem;font-size:.78rem;color:#666;white-space:pre-wrap;font-family:ui-monospace,monospace}
.lead{font-size:1.02rem}
"""


def _cell(value: Any) -> str:
    if isinstance(value, Mapping) and {"value", "low", "high"} <= set(value):
        if value["value"] is None:
            return "-"
        return f"{100 * value['value']:.0f} % [{100 * value['low']:.0f}, {100 * value['high']:.0f}]"
    if isinstance(value, float):
        return f"{value:.3f}"
    return escape(str(value))


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _figure(folder: Path, figure: Mapping[str, str]) -> str:
    data = base64.b64encode((folder / figure["png"]).read_bytes()).decode()
    caption = escape(figure["caption"])
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )


def _measures(data: Mapping[str, Any]) -> list[str]:
    """What each measure says of its role, and how it stands on models whose answer is known."""
    rows = []
    for name, row in data["measures"].items():
        found = row.get("finding")
        if not row["done"] or not found:
            says = row.get("reason", "describes, decides no role") if not row["done"] else "describes, decides no role"
        elif found["found"]:
            says = f"from block {found['onset']} [{found['onset_low']}, {found['onset_high']}], peak {found['peak']}"
        else:
            says = f"{Role.from_dict(found).absence}: {found['reason']}"
        rows.append([name, row["role"] or "-", says, row["standing"], row["source"]])
    agreed = []
    for name, c in data["consensus"].items():
        where = f"from block {c['onset']} [{c['onset_low']}, {c['onset_high']}]" if c["found"] else c["reason"]
        agreed.append([name, where, votes_text(c)])
    return [
        "<h2>Consensus of the counted measures</h2>",
        _table(["role", "where", "measures that find it"], agreed),
        "<h2>Measures</h2>",
        _table(["measure", "role", "says", "on models of known answer", "source"], rows),
    ]


def _after_locating(data: Mapping[str, Any]) -> list[str]:
    """Patching, SASA and the defence table, or why they were not done."""
    causal, sasa, defenses = data["causal"], data["sasa"], data["defenses"]
    parts = ["<h2>Patching</h2>"]
    if causal["done"]:
        rows = [
            [direction, "nothing survives" if cell is None else f"{cell['position']}, block {cell['block']}",
             "-" if cell is None else f"{cell['effect']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]"]
            for direction, cell in causal["strongest"].items()
        ]  # fmt: skip
        counted = f"{causal['cells_surviving']} of {causal['cells']} cells are above 0 and beat every null"
        parts += [_table(["direction", "strongest cell", "share of the difference"], rows), f"<p>{counted}.</p>"]
    else:
        parts.append(f"<p>Not done: {escape(causal['reason'])}</p>")
    parts += ["<h2>SASA</h2>", f"<p>{escape(sasa['verdict'] if sasa['done'] else 'Not done: ' + sasa['reason'])}</p>"]
    parts.append("<h2>Defences, a first look</h2>")
    if defenses["done"]:
        keys = {"attack_success": "not refused", "complied": "complied", "over_refusal": "over-refusal"}
        shown = {key: name for key, name in keys.items() if key in defenses["rows"][0]}  # older runs have no "complied"
        table = [[row["system"], *(row[key] for key in shown)] for row in defenses["rows"]]
        parts.append(_table(["system", *shown.values()], table))
    else:
        parts.append(f"<p>Not done: {escape(defenses['reason'])}</p>")
    return parts


def render_report(result: SweepResult) -> str:
    """The page of a finished sweep."""
    data = result.data
    order = data["order_test"]
    p_value = "" if order.get("p_value") is None else f" (p = {order['p_value']:.4f})"
    problems = data["dataset"]["problem_list"]
    left_out = "".join(f"<li>{escape(text)}</li>" for text in problems[:200])
    footer = "\n".join(
        f"{name}: {value}"
        for part in ("model", "environment", "config", "timings")
        for name, value in data[part].items()
    )
    body = [
        f"<h1>Safety atlas of {escape(data['model']['name'])}</h1>",
        f"<p>{escape(data['dataset']['name'])}, {data['dataset']['samples']} items "
        f"({data['dataset']['harmful']} harmful, {data['dataset']['harmless']} harmless)</p>",
        "".join(f'<p class="lead">{escape(str(role))}</p>' for role in result.roles),
        f'<p class="lead">Order: {escape(order["conclusion"])}{p_value}</p>',
        *(_figure(result.folder, figure) for figure in data["figures"]),
        *_measures(data),
        *_after_locating(data),
        "<h2>By quadrant (image, text, joint)</h2>",
        _table(
            ["quadrant", "items", "perceived", "refused", "perceived, not refused"],
            [
                [r["quadrant"], r["n"], r["perceived"], r["refused"], r["perceived_not_refused"]]
                for r in data["quadrants"]
            ],
        ),
        f"<p>Perceived: {escape(data['perceived_note'])}</p>" if data.get("perceived_note") else "",
        f"<h2>Records left out: {len(problems)}</h2><ul>{left_out}</ul>" if problems else "",
        "".join(f"<p>{escape(note)}</p>" for note in data["notes"]),
        f"<footer>{escape(footer)}</footer>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Safety atlas of {escape(data['model']['name'])}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write ``report.html`` into a run folder (or to ``out``); returns its path."""
    result = SweepResult.load(folder)
    target = Path(out) if out is not None else result.folder / "report.html"
    write_atomic(target, render_report(result))
    return target
