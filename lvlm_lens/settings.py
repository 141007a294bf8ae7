"""Settings that are options of the command line: a field of a dataclass that says its own help.

:func:`lvlm_lens.commands.options.add_settings` makes the options, so a name, a default and a meaning are written once.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(default: Any, about: str, unset: str | None = None, word: str | None = None, **option: Any) -> Any:
    """A field: its default, and what its option on the command line says.

    ``unset`` says what holds where nothing is given, where the default itself would not tell; ``word`` is the option
    where it is not the field's name; ``option`` goes to argparse.
    """
    return field(default=default, metadata={"help": about, "unset": unset, "word": word, "option": option})
