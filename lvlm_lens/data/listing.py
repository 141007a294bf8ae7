"""What is there and what is missing: the state of every data set, as rows and as text.

``lvlm-lens datasets`` prints :func:`dataset_rows`; ``lvlm-lens datasets NAME`` prints :func:`describe`.
A state is ``embedded`` (ships with the package), ``no root`` (no folder was given), ``missing`` (files are not there),
``broken`` (there, but not readable), ``differs`` (read, but the counts are not the published ones), ``complete`` (read,
counts as published) or ``read`` (read; no counts are published).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .cards import DatasetCard, count_samples, plain
from .registry import DATA_ROOT, card, cards, load_card, load_dataset, root_of

MINI = "mini"


@dataclass(frozen=True)
class Inspection:
    """The state of one set under one root; ``found`` and ``expected`` are counts by the same keys."""

    card: DatasetCard
    state: str
    root: Path | None
    present: tuple[str, ...]
    missing: tuple[str, ...]
    expected: dict[str, int]
    found: dict[str, int]
    problems: int
    detail: str = ""


def inspect(name: str, root: Path | str | None = None) -> Inspection:
    """Look at a registered set under ``root`` (or ``$LVLM_LENS_DATA``): files, then records and their counts."""
    known = card(name)
    expected = dict(known.counts)
    if root is None and not os.environ.get(DATA_ROOT) and known.embedded is None:
        return Inspection(known, "no root", None, (), known.files, expected, {}, 0)
    try:
        folder = root_of(known, root)
    except DataError as error:
        return Inspection(known, "missing", None, (), known.files, expected, {}, 0, str(error))
    missing = tuple(known.missing(folder))
    present = tuple(entry for entry in known.files if entry not in missing)
    if known.files[0] in missing:
        return Inspection(known, "missing", folder, present, missing, expected, {}, 0)
    try:
        data = load_card(known, folder)
    except DataError as error:
        return Inspection(known, "broken", folder, present, missing, expected, {}, 0, str(error))
    found = {key: count_samples(data, key) for key in expected or ("samples",)}
    state = "read" if not expected else "complete" if found == expected else "differs"
    if folder == known.embedded and state == "complete":
        state = "embedded"
    return Inspection(known, state, folder, present, missing, expected, found, len(data.problems))


def _mini_counts() -> dict[str, int]:
    data = load_dataset(MINI)
    return {"samples": len(data), "pairs": len(data.pairs()), "groups": count_samples(data, "groups")}


def dataset_row(name: str, root: Path | str | None = None) -> dict[str, object]:
    """One set as plain values (JSON): name, title, state, counts expected and found, format's source, licence."""
    if plain(name) == MINI:
        return {
            "name": MINI,
            "title": "the embedded set, drawn by the package",
            "state": "embedded",
            "source": "embedded",
            "own_schema": False,
            "expected": {},
            "found": _mini_counts(),
            "problems": 0,
            "missing": [],
            "subsets": [],
            "licence": "MIT; the drawings keep the licences of their art",
            "homepage": "",
            "root": None,
            "detail": "",
        }
    seen = inspect(name, root)
    return {
        "name": seen.card.name,
        "title": seen.card.title,
        "state": seen.state,
        "source": seen.card.source,
        "own_schema": seen.card.own_schema,
        "expected": seen.expected,
        "found": seen.found,
        "problems": seen.problems,
        "missing": list(seen.missing) if seen.state != "no root" else [],
        "subsets": list(seen.card.subsets),
        "licence": seen.card.licence,
        "homepage": seen.card.homepage,
        "root": str(seen.root) if seen.root is not None else None,
        "detail": seen.detail,
    }


def dataset_rows(root: Path | str | None = None) -> list[dict[str, object]]:
    """:func:`dataset_row` of the embedded set and of every registered one."""
    return [dataset_row(name, root) for name in (MINI, *cards())]


def describe(name: str, root: Path | str | None = None) -> str:
    """One set in words: what it is, what to download, where to put it, what is there, what is missing."""
    if plain(name) == MINI:
        counts = ", ".join(f"{count:,} {key}" for key, count in _mini_counts().items())
        return f"{MINI}: the embedded set, drawn by the package\n  state     embedded\n    {counts}"
    seen = inspect(name, root)
    known = seen.card
    lines = [
        f"{known.name}: {known.title}",
        f"  paper     {known.citation}",
        f"  licence   {known.licence}",
        f"  home      {known.homepage}",
        f"  format    {known.source}"
        + (" (this toolkit's; the authors' files are not public)" if known.own_schema else ""),
        f"  download  {known.download}",
    ]
    if known.embedded is not None:
        lines.append(
            "  ships     nothing to download: the authors' file, unchanged, and its licence's text come with this "
            "package; --root FOLDER or LVLM_LENS_DATA reads another copy"
        )
    if known.subsets:
        lines.append(f"  subsets   {', '.join(known.subsets)}")
    if known.note:
        lines.append(f"  note      {known.note}")
    where = seen.root if seen.root is not None else "ROOT (give --root FOLDER or set LVLM_LENS_DATA)"
    lines.append(f"  files under {where}:")
    for entry in known.files:
        mark = "?" if seen.root is None else "missing" if entry in seen.missing else "there"
        lines.append(f"    [{mark}] {' or '.join(entry.split('|'))}")
    lines.append(f"  state     {seen.state}" + (f": {seen.detail}" if seen.detail else ""))
    for key, count in seen.expected.items():
        found = f"{seen.found[key]:,} found" if key in seen.found else "not read"
        lines.append(f"    {key}: {count:,} published, {found}")
    if not seen.expected:
        lines.extend(f"    {key}: {count:,} found" for key, count in seen.found.items())
    if seen.problems:
        lines.append(f"    {seen.problems} records were left out; load with strict to stop at the first")
    if known.own_schema:
        lines.append(f"  template  lvlm-lens datasets {known.name} --template FILE writes an example record")
    return "\n".join(lines)
