"""Where fetched weights lie, and folders there that are either whole or absent.

The place is ``$LVLM_LENS_CACHE``, else ``lvlm-lens`` under ``$XDG_CACHE_HOME`` or ``~/.cache``.  A folder is built
under another name beside its place and renamed into it, under a lock, so that a run which is killed leaves nothing
that could be taken for weights; what it does leave is removed by the next one that builds.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError

from ...errors import ModelError, RunFolderError

BASE = "base"
ORIGIN = "origin.json"
_PARTIAL = "partial-"


def store_folder() -> Path:
    """The folder of everything that belongs to ``smol``; it need not exist."""
    named = os.environ.get("LVLM_LENS_CACHE")
    if named:
        return Path(named).expanduser() / "smol"
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # a relative XDG_CACHE_HOME is invalid by its specification and to be ignored
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "lvlm-lens" / "smol"


def base_folder(name: str) -> Path:
    """The language model's folder; raises :class:`ModelError` with the command that brings it."""
    folder = store_folder() / BASE
    if not folder.is_dir():
        raise ModelError(
            f"model {name!r} is not on this machine yet: `lvlm-lens models smol --fetch` gets it (93 MB); "
            "without network: `lvlm-lens models smol --fetch --from FILE_OR_FOLDER`"
        )
    return folder


def origin(folder: Path | str) -> str | None:
    """What the weights in ``folder`` were made of, in words; ``None`` for a folder that is not ours."""
    file = Path(folder) / ORIGIN
    if not file.is_file():
        return None
    return str(json.loads(file.read_text(encoding="utf-8"))["base"])


@contextmanager
def locked() -> Iterator[Path]:
    """Hold the store for this process, cleaned of what a killed run left; yields its folder."""
    store = store_folder()
    with _writable(store):
        store.mkdir(parents=True, exist_ok=True)
        lock = FileLock(store / ".lock")
        lock.acquire()
    try:
        for left in store.glob(f"{_PARTIAL}*"):  # under the lock nobody else is building
            shutil.rmtree(left, ignore_errors=True)
        yield store
    finally:
        lock.release()


@contextmanager
def new_folder(target: Path, megabytes: int) -> Iterator[Path]:
    """A temporary folder that takes the place of ``target`` when the block ends well, and is removed otherwise.

    To be used inside :func:`locked`.

    Raises:
        RunFolderError: less than ``megabytes`` are free, or the place cannot be written.
    """
    free = shutil.disk_usage(target.parent).free // 10**6
    if free < megabytes:
        raise RunFolderError(
            f"{target.parent} has {free:,} MB free and {megabytes:,} MB are needed; make room, or set LVLM_LENS_CACHE "
            "to a folder on another disk"
        )
    with _writable(target.parent):
        partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=target.parent))
        try:
            yield partial
            partial.chmod(0o755)  # mkdtemp's folders and safetensors' files are closed to everyone else
            for file in partial.iterdir():
                file.chmod(0o644)
            if target.is_dir():
                target.rename(partial.with_name(partial.name + "-old"))
            partial.rename(target)
        finally:
            for left in target.parent.glob(f"{partial.name}*"):
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def no_bars() -> Iterator[None]:
    """transformers' progress bars off for a few seconds of loading and saving, then as they were."""
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            logging.enable_progress_bar()


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Full and closed disks in one line that says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors wraps the system's own error
        if "No space left" in str(error) or "quota" in str(error):
            raise RunFolderError(
                f"the disk of {folder} is full; nothing was kept. Make room, or set LVLM_LENS_CACHE to a folder on "
                "another disk"
            ) from error
        if isinstance(error, OSError):
            raise RunFolderError(
                f"{folder} cannot be written ({error.strerror or error}); set LVLM_LENS_CACHE to a folder that can"
            ) from error
        raise
