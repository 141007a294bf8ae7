"""The one way in which a file is written: beside its place, flushed to the device, renamed into it.

A kill or a power cut leaves the old file, the new one, or none; never half of one under its name.
"""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ..errors import RunFolderError

PARTIAL = ".partial"
"""Ending of a file that is not finished; what a killed writer leaves."""

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again, finished rows are kept",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EFBIG: "a file would grow over the size limit; raise it or use smaller chunks",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission is denied; choose a folder that can be written",
    errno.EPERM: "the operation is not permitted; choose a folder that can be written",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
}


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn the operating system's refusal to write into a :class:`RunFolderError` that says why."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = _REASONS.get(_number(error), str(error))
        raise RunFolderError(f"{what} cannot be written: {reason}") from error


def _number(error: OSError | SafetensorError) -> int:
    """The system's number of an error; safetensors keeps it in its words only."""
    if isinstance(error, OSError):
        return error.errno or 0
    told = re.search(r"os error (\d+)", str(error))
    return int(told[1]) if told else 0


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place to write a file to; when the block ends well it stands, whole and on the device, at ``path``.

    Raises:
        RunFolderError: the file cannot be written.
    """
    with writing(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            yield beside
            flush_file(beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        flush_folder(path.parent)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes so that the file is either whole under its name or not there."""
    with replacing(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


def append_line(path: Path, text: str) -> None:
    """Add lines to a file; they are on the device when this returns.  A reader drops a torn last line."""
    with writing(str(path)), path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def flush_file(path: Path) -> None:
    """Wait until a written file is on the device."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folder(path: Path) -> None:
    """Wait until a folder's entries are on the device (where the system can flush folders)."""
    if os.name == "posix":
        flush_file(path)
