"""Activations: names of sites, reading them, writing them, keeping them.

:mod:`.sites` parses names, :mod:`.capture` reads into memory, :mod:`.capture_to` and :mod:`.store` keep on disk, and
:mod:`.check_anatomy` is the battery for every family.  Imports ``models``, ``data`` and ``storage``.  One more site: a
row in :mod:`.sites`, and the battery covers it.
"""

from .activations import Activations, BlockView
from .capture import capture
from .capture_to import capture_to
from .hooks import attached
from .sites import Site, Tap, all_sites, expand_sites, tap
from .store import ActivationStore

__all__ = [
    "ActivationStore",
    "Activations",
    "BlockView",
    "Site",
    "Tap",
    "all_sites",
    "attached",
    "capture",
    "capture_to",
    "expand_sites",
    "tap",
]
