"""Reading a run folder that may come from a stranger.

A result names its figures by file name.  Such a name could point anywhere on the reader's disk, and the page would
carry the file out.  So every name is resolved, must lie inside the folder, and must be what it says it is.
"""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

from ..errors import RunFolderError

_LARGEST_FIGURE = 4 * 2**20
_LARGEST_JSON = 256 * 2**20


class ReportFolder:
    """A run folder, opened for reading only.

    Args:
        path: the folder, or the one JSON file that ``lvlm-lens selftest --out FILE`` wrote.

    Attributes:
        path: the folder; ``only``: the name of that one file, else ``None``.

    Raises:
        RunFolderError: there is no such folder.
    """

    def __init__(self, path: str | Path) -> None:
        given = Path(path).expanduser()
        self.only = given.name if given.is_file() else None
        self.path = given.parent if self.only else given
        if not self.path.is_dir():
            raise RunFolderError(f"{str(path)!r} is no folder; give the folder that a run wrote (its --out)")
        self._root = self.path.resolve()

    def file(self, name: str) -> Path | None:
        """The file of that name inside the folder, or ``None`` where there is none.

        Raises:
            RunFolderError: the name leads out of the folder.
        """
        target = (self._root / name).resolve()
        if not target.is_relative_to(self._root):
            raise RunFolderError(f"the result in {str(self.path)!r} names {name!r}, which lies outside the run folder")
        return target if target.is_file() else None

    def json(self, name: str) -> Any | None:
        """A JSON file, or ``None`` where there is none.

        Raises:
            RunFolderError: the file is no JSON.
        """
        file = self.file(name)
        if file is None:
            return None
        if file.stat().st_size > _LARGEST_JSON:
            raise RunFolderError(f"{name} in {str(self.path)!r} is larger than {_LARGEST_JSON // 2**20} MiB")
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise RunFolderError(
                f"{name} in {str(self.path)!r} is not JSON: {error or type(error).__name__}"
            ) from error

    def record(self, name: str) -> dict[str, Any]:
        """A JSON file that holds one record.

        Raises:
            RunFolderError: it is not there, is no JSON, or holds something else.
        """
        found = self.json(name)
        if not isinstance(found, dict):
            raise RunFolderError(f"{name} in {str(self.path)!r} holds no record")
        return found

    def rows(self, name: str) -> list[dict[str, str]]:
        """The rows of a CSV file; none where there is no such file."""
        file = self.file(name)
        if file is None:
            return []
        with file.open(encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines))

    def figure(self, *names: str) -> str | None:
        """The first of these figures that is there, as a ``data:`` address for an ``<img>``; SVG or PNG.

        Inside an ``<img>`` a browser runs no script of an SVG and loads nothing for it.

        Raises:
            RunFolderError: a file is no figure of its kind, or larger than 4 MiB.
        """
        for name in names:
            file = self.file(name)
            if file is None:
                continue
            data = file.read_bytes()
            if len(data) > _LARGEST_FIGURE:
                continue  # the next one named is the same figure as pixels
            head = data[:512].lstrip()
            if data.startswith(b"\x89PNG\r\n\x1a\n"):
                kind = "image/png"
            elif name.endswith(".svg") and head.startswith((b"<?xml", b"<svg")) and b"<svg" in data:
                kind = "image/svg+xml"
            else:
                raise RunFolderError(f"{name} in {str(self.path)!r} is neither a PNG nor an SVG figure")
            return f"data:{kind};base64,{base64.b64encode(data).decode()}"
        return None
