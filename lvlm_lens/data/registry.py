"""``load_dataset``: one door to every data set.

``name`` is, in this order: a pandas frame, a :class:`Dataset` or a set of the ``datasets`` package; ``"mini"``; a
registered published set (``"siuo"``, ``"xstest"`` ...), read from the download under ``root``; a .csv, .tsv, .jsonl,
.json or .parquet file, or a folder of images with one; or a hub id ``org/name``.

>>> load_dataset("mini")                                                    # doctest: +SKIP
>>> load_dataset("siuo", root="~/data/SIUO")                                # doctest: +SKIP
>>> load_dataset("mine.csv", root="pictures", text="prompt", label="bad")   # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError, near_matches
from ..plugins import announced
from .cards import CARDS, DatasetCard, count_differences, plain, register
from .dataset import Dataset
from .hub import is_loaded, read_hub, read_loaded
from .labels import as_split
from .limits import limited
from .reading import TABLE_SUFFIXES
from .tables import Columns, frame_rows, from_rows, read_file, table_in

__all__ = ["DatasetCard", "card", "cards", "load_dataset", "register", "root_of"]

FORMATS = (
    "siuo",
    "mssbench",
    "mmsafeaware",
    "ssui",
    "rsbench",
    "msr_align",
    "rational",
    "visu",
    "rtvlm",
    "mm_safetybench",
    "figstep",
    "vlguard",
    "vlsafe",
    "jailbreakv",
    "spa_vl",
    "hades",
    "xstest",
    "advbench",
    "harmbench",
    "strongreject",
    "mossbench",
    "holisafe",
    "mmvet",
    "mme",
    "scienceqa",
    "llava_bench",
)
"""The format files of this folder; each registers its card when imported."""

DATA_ROOT = "LVLM_LENS_DATA"
"""Environment variable: a folder with one subfolder for each data set, used when no root is given."""


def cards() -> dict[str, DatasetCard]:
    """Every registered data set's card, by name."""
    for module in FORMATS:
        importlib.import_module(f".{module}", __package__)
    for found in announced("lvlm_lens.datasets").values():
        register(found)
    return CARDS


def card(name: str) -> DatasetCard:
    """The card of a registered data set; case, hyphens and underscores do not matter."""
    found = _find(name)
    if found is None:
        known = sorted(cards())
        raise DataError(
            f"no data set {name!r}{near_matches(name.casefold(), known)} The registered sets are {', '.join(known)}"
        )
    return found


def _find(name: str) -> DatasetCard | None:
    for known in cards().values():
        if plain(name) in {plain(word) for word in (known.name, *known.aliases)}:
            return known
    return None


def root_of(found: DatasetCard, root: Path | str | None) -> Path:
    """The folder with a set's files: ``root`` itself, or the subfolder of it that bears the set's name.

    Without ``root`` the folder named by the environment variable ``LVLM_LENS_DATA`` is searched, and where the set
    is not there, a set that ships with the package is read from the package.
    """
    named = os.environ.get(DATA_ROOT)
    if root is None and found.embedded is not None and (named is None or not _lies_under(found, Path(named))):
        return found.embedded
    base = root if root is not None else named
    if base is None:
        raise DataError(
            f"data set {found.name!r} is read from its published files: give root=FOLDER (--root), or set {DATA_ROOT}; "
            f"`lvlm-lens datasets {found.name}` says what to download"
        )
    folder = Path(base).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"the data root {folder} is not a folder; `lvlm-lens datasets {found.name}` says what belongs there"
        )
    return _subfolder(found, folder) if found.missing(folder) else folder


def _subfolder(found: DatasetCard, folder: Path) -> Path:
    names = {plain(word) for word in (found.name, *found.aliases)}
    return next((d for d in sorted(folder.iterdir()) if d.is_dir() and plain(d.name) in names), folder)


def _lies_under(found: DatasetCard, named: Path) -> bool:
    folder = named.expanduser()
    return folder.is_dir() and not (found.missing(folder) and found.missing(_subfolder(found, folder)))


def load_dataset(
    name: Any,
    root: Path | str | None = None,
    split: str | None = None,
    subset: str | None = None,
    limit: int | None = None,
    strict: bool = False,
    seed: int = 0,
    **columns: Any,
) -> Dataset:
    """Load a data set by name, file, folder, hub id or pandas frame.

    Args:
        name: see the module's first lines.
        root: the folder of the published files; for tables the folder under which images lie.
        split: only this split (``train``, ``validation``, ``test``, or the set's own word).
        subset: one of the card's subsets (``chat``, ``SD_TYPO`` ...); for hub ids the configuration.
        limit: at most this many samples, whole groups (:mod:`~lvlm_lens.data.limits`); a set that is streamed from
            the hub is read no further than this many of each class.
        seed: of the samples that a limit keeps.
        strict: the first bad record raises instead of being skipped and listed in ``problems``.
        columns: for tables, which column is ``text``, ``image``, ``label``, ``id``, ``group``,
            ``split_column``, ``category``, ``counterfactual``, ``text_only`` ..., and ``label_map``.

    Raises:
        DataError: unknown name (with near matches), missing files or columns, nothing usable.
        UsageError: an option that does not apply.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}; it must be at least 1")
    wanted = Columns.parse(columns)
    data = _load(name, root, split, subset, limit, strict, wanted, bool(columns))
    if split is not None:
        data = data.split(as_split(split))
    if limit is None or limit >= len(data):
        return data
    kept = limited(data, limit, seed)
    return Dataset(kept, kept.name, kept.problems, [*kept.notes, f"limited to {limit} samples"])


def _load(
    name: Any,
    root: Path | str | None,
    split: str | None,
    subset: str | None,
    limit: int | None,
    strict: bool,
    wanted: Columns,
    named_columns: bool,
) -> Dataset:
    base = Path(root).expanduser() if root is not None else None
    reach = limit if split is None else None  # a limit counts within the split
    if isinstance(name, Dataset):
        return name
    if not isinstance(name, (str, Path)):
        if hasattr(name, "columns") and hasattr(name, "itertuples"):
            return from_rows(frame_rows(name), wanted, "frame", base or Path(), "", strict)
        if is_loaded(name):
            return read_loaded(name, wanted, strict=strict)
        raise UsageError(f"a data set is a name, a path, a pandas frame or a Dataset, not {type(name).__name__}")
    word = str(name)
    found = _find(word) if isinstance(name, str) and word != "mini" else None
    if (word == "mini" or found is not None) and named_columns:
        raise UsageError(f"column options are for tables; data set {word!r} has a published format of its own")
    if word == "mini":
        if subset is not None:
            raise UsageError("data set 'mini' has no subsets")
        from .mini import load_mini

        return load_mini()
    if found is not None:
        return load_card(found, root_of(found, root), subset, strict)
    path = Path(word).expanduser()
    if path.exists() or path.suffix.lower() in TABLE_SUFFIXES:
        if subset is not None:
            raise UsageError("subset= is for registered sets and hub ids; filter a table with Dataset.filter")
        if path.is_dir():
            return read_file(table_in(path), wanted, base or path, strict)
        return read_file(path, wanted, base, strict)
    if isinstance(name, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", word):
        return read_hub(word, wanted, subset, split, reach, strict)
    known = ["mini", *sorted(cards())]
    raise DataError(
        f"no data set {word!r}{near_matches(word.casefold(), known) or '.'} Registered: {', '.join(known)}. "
        "A file, a folder of images with a table, or a hub id ORG/NAME can be given too"
    )


def load_card(found: DatasetCard, root: Path, subset: str | None = None, strict: bool = False) -> Dataset:
    """A registered set from the folder with its files; differences from published counts become notes."""
    if subset is not None and subset not in found.subsets:
        have = f"its subsets are {', '.join(found.subsets)}" if found.subsets else "it has no subsets"
        raise UsageError(
            f"data set {found.name!r} has no subset {subset!r}; {have}{near_matches(subset, found.subsets)}"
        )
    data = found.loader(root, subset, strict)
    notes = [*data.notes, *([found.note] if found.note else ())]
    if subset is None:
        notes += count_differences(found, data)
    return Dataset(data.samples, found.name, data.problems, notes)
