"""The training log: one JSON object a line, flushed as it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Journal:
    """Appends records to a JSONL file and, if asked, prints them."""

    def __init__(self, path: Path, echo: bool = True) -> None:
        self.path = path
        self.echo = echo

    def write(self, **record: Any) -> None:
        """Add one record; floats are rounded to five digits."""
        neat = {key: round(value, 5) if isinstance(value, float) else value for key, value in record.items()}
        line = json.dumps(neat)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        if self.echo:
            print(line, flush=True)
