"""The ledger of a computation that is done piece by piece: one safetensors file per piece, whole or absent.

A piece is arrays and plain facts about them.  It is finished when its file is there, so a look at the folder tells what
is left, and a run that was killed computes just that.  A piece without arrays holds facts alone: the reason, say, why
nothing could be read.  ``None`` in place of a folder keeps nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import RunFolderError
from .arrays import load_arrays, save_arrays


class Piece(NamedTuple):
    """One finished piece: arrays by name, and plain JSON about them."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


class Pieces:
    """The pieces in one folder.

    Args:
        folder: made when the first piece is kept.
        head: what each piece must belong to, as plain JSON (settings, say), where the folder itself is not claimed by
            one run; a piece of another head counts as absent and is written over.
    """

    ending = ".safetensors"

    def __init__(self, folder: Path | None, head: Any = None) -> None:
        self.folder = folder
        self.head = json.loads(json.dumps(head))

    def names(self) -> set[str]:
        """Finished pieces; they are opened only where a head says which of them count."""
        if self.folder is None or not self.folder.is_dir():
            return set()
        found = {path.name.removesuffix(self.ending) for path in self.folder.glob(f"[!.]*{self.ending}")}
        return found if self.head is None else {name for name in found if self.get(name) is not None}

    def get(self, name: str) -> Piece | None:
        """A finished piece, or ``None``.

        Raises:
            RunFolderError: its file is damaged; the message says which one to remove.
        """
        if self.folder is None or not (file := self.folder / f"{name}{self.ending}").is_file():
            return None
        arrays, about = load_arrays(file)
        if "facts" not in about:  # an earlier version's
            return None
        try:
            head, facts = json.loads(about["head"]), json.loads(about["facts"])
        except (KeyError, ValueError, RecursionError) as error:
            raise RunFolderError(f"{file} is damaged ({error!r}); remove it and run again") from error
        return Piece(arrays, facts) if head == self.head else None

    def put(self, name: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None) -> None:
        """Finish a piece."""
        if self.folder is not None:
            about = {"head": json.dumps(self.head), "facts": json.dumps(dict(facts or {}))}
            save_arrays(self.folder / f"{name}{self.ending}", arrays, about)

    def clear(self) -> None:
        """Remove every piece, once what is made of all of them stands."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def made(self, name: str, make: Callable[[], tuple[Mapping[str, np.ndarray], Mapping[str, Any]]]) -> Piece:
        """A piece as it is kept, else made now and kept."""
        kept = self.get(name)
        if kept is None:
            arrays, facts = make()
            self.put(name, arrays, facts)
            kept = Piece(dict(arrays), dict(facts))
        return kept
