"""``lvlm-lens datasets``."""

from __future__ import annotations

import argparse
import json

from ..errors import UsageError
from .options import add_output_options, next_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the data sets command."""
    parser.add_argument("name", nargs="?", help="what to download, where to put it, what is there (default: list all)")
    parser.add_argument("--root", metavar="DIR", help="where its files are (default: $LVLM_LENS_DATA)")
    parser.add_argument("--template", metavar="FILE", help="write an empty file in the set's own schema (default: no)")
    add_output_options(parser)


def opening(options: argparse.Namespace) -> str | None:
    """What is about to happen."""
    return "counting what is there" if options.name is None else None


def run(options: argparse.Namespace) -> int:
    """List all, describe one, or write a template."""
    from ..data.listing import dataset_row, dataset_rows, describe
    from ..data.ownschema import write_template

    if options.template is not None:
        if options.name is None:
            raise UsageError("--template needs the name of a data set with a schema of its own")
        print(f"wrote {write_template(options.name, options.template)}")
        return 0
    if options.name is not None:
        if options.json:
            print(json.dumps(dataset_row(options.name, options.root), indent=2))
        else:
            print(describe(options.name, options.root))
        return 0
    rows = dataset_rows(options.root)
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    from .console import console, simple_table

    table = simple_table("name", "title", "state", "published", "licence")
    for row in rows:
        expected = row["expected"]
        assert isinstance(expected, dict)
        counts = ", ".join(f"{count:,} {key}" for key, count in list(expected.items())[:2])
        table.add_row(str(row["name"]), str(row["title"]), str(row["state"]), counts, str(row["licence"]))
    console().print(table)
    there = sum(row["state"] in ("embedded", "complete", "read") for row in rows)
    print(f"Found: {there} of {len(rows)} data sets can be used as they are here")
    print(next_line("lvlm-lens datasets NAME    (what to download and where to put it)"))
    return 0
