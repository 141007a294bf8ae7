"""A store's folder: small files that appear whole or not at all, on a disk or at any fsspec address.

On a local disk files are committed as ``commit.py`` tells; object stores put an object whole by themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import RunFolderError
from .commit import write_atomic, writing


class Folder:
    """A folder at a local path, a ``file://`` address, or any other fsspec address.

    Attributes:
        address: as printed in messages.
        local: the path where the folder is on this machine's disk, else ``None``.
    """

    def __init__(self, address: str | Path) -> None:
        text = str(address)
        self.local: Path | None = None
        self.fs: Any = None
        if "://" not in text or text.startswith(("file://", "local://")):
            self.local = Path(text.split("://", 1)[-1]).expanduser()
            self.address = str(self.local)
            return
        import fsspec

        try:
            self.fs, self._root = fsspec.url_to_fs(text)
        except (ValueError, ImportError) as error:
            raise RunFolderError(f"address {text!r} cannot be opened: {error}") from error
        self.address = text.rstrip("/")

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def exists(self, name: str) -> bool:
        """True where the file is there."""
        return (self.local / name).is_file() if self.local is not None else bool(self.fs.isfile(self._at(name)))

    def read(self, name: str) -> bytes:
        """The whole file; raises ``FileNotFoundError``."""
        if self.local is not None:
            return (self.local / name).read_bytes()
        self.fs.invalidate_cache()  # another writer may just have put it there
        return self.fs.cat_file(self._at(name))

    def names(self, folder: str) -> list[str]:
        """Names of the files directly in a sub-folder, sorted; none where it does not exist."""
        if self.local is not None:
            place = self.local / folder
            return sorted(entry.name for entry in place.iterdir() if entry.is_file()) if place.is_dir() else []
        self.fs.invalidate_cache()
        if not self.fs.exists(self._at(folder)):
            return []
        return sorted(path.rsplit("/", 1)[-1] for path in self.fs.ls(self._at(folder), detail=False))

    def commit(self, name: str, data: bytes) -> None:
        """Write a file so that it is there whole or not at all, and on the device when this returns."""
        if self.local is not None:
            write_atomic(self.local / name, data)
            return
        with writing(f"{self.address}/{name}"):
            self.fs.pipe_file(self._at(name), data)

    def remove(self, name: str) -> None:
        """Remove a file where it is there."""
        if self.local is not None:
            (self.local / name).unlink(missing_ok=True)
        elif self.fs.exists(self._at(name)):
            self.fs.rm_file(self._at(name))
