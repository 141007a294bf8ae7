"""A run is a folder: its resolved configuration, its intermediate results, its figures and its result.

The same command again continues the run.  A folder that belongs to another run is refused with the
difference, field by field, and nothing in it is touched.  Files appear under their names only when
complete (written beside, synced, renamed), so a killed run leaves nothing half-written that counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RunFolderError
from .commit import write_atomic
from .identity import require

IDENTITY = "run.json"


class RunFolder:
    """The output folder of one run.

    Args:
        path: created when it is not there.

    Raises:
        RunFolderError: the folder cannot be created or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / ".writable"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise RunFolderError(
                f"output folder {str(path)!r} cannot be written ({error.strerror or error}); give another with --out"
            ) from error

    def claim(self, identity: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> bool:
        """Make the folder this run's own; True when the run was already begun here.

        Args:
            identity: what must be equal for the run to be continued, its ``settings`` among it.
            defaults: of settings; a record from before a setting existed was made with its default.

        Raises:
            RunFolderError: it belongs to another run (the message lists the differences), or it holds
                files and is no run folder.
        """
        file = self.path / IDENTITY
        plain = json.loads(json.dumps(identity))
        strangers = [entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")]
        if file.is_file():  # asked after the look at the rest: another worker of this run may just have claimed it
            try:
                there = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise RunFolderError(f"{file} cannot be read ({error}); give another folder with --out") from error
            known = plain.get("settings", {})
            older = {name: value for name, value in (defaults or {}).items() if name in known}
            if older and isinstance(there.get("settings"), dict):
                there["settings"] = {**older, **there["settings"]}
            require(
                f"output folder {str(self.path)!r}", there, identity, "run",
                "give another folder with --out, or remove this one",
            )  # fmt: skip
            return True
        if strangers:
            raise RunFolderError(
                f"output folder {str(self.path)!r} holds {len(strangers)} file(s) of something else "
                f"(e.g. {strangers[0]!r}) and no {IDENTITY}; give an empty or new folder with --out"
            )
        write_atomic(file, json.dumps(plain, indent=2) + "\n")
        return False

    def write_json(self, name: str, value: Any) -> None:
        """Write strict JSON (NaN and infinity raise)."""
        write_atomic(self.path / name, json.dumps(value, indent=2, allow_nan=False) + "\n")

    def read_json(self, name: str) -> Any | None:
        """A JSON file of the run, or ``None`` where it is not there."""
        file = self.path / name
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
