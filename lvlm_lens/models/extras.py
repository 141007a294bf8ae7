"""Packages that only some models need: one line that says what to install, not a traceback."""

from __future__ import annotations

import logging
from importlib.util import find_spec

from ..errors import ModelError

INSTALL = {
    "adapters": "pip install 'lvlm-lens[adapters]'",
    "train": "pip install 'lvlm-lens[train]'",
    "gguf": "pip install gguf",
}


def needs(package: str, extra: str, what: str) -> None:
    """Raise :class:`ModelError` where a package is not installed; ``what`` needs it."""
    if package in {"peft", "bitsandbytes"}:  # the first imports the second, where it is installed
        # it says once that a faster kernel could be fetched from the hub, which is nobody's question here
        logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    if find_spec(package) is None:
        raise ModelError(f"{what} needs the package {package}, which is not installed: {INSTALL[extra]}")
