"""Models: loading, encoding, running; where each family keeps its parts.

:mod:`.families` is the table of families, :mod:`.anatomy` finds the parts of a model by its row, :mod:`.discovery`
without one, :mod:`.loading` brings weights, :mod:`.encode` and :mod:`.positions` turn a sample into tokens with a place
each.  Imports ``data`` and the errors.  One more family: a row of ``FAMILIES`` and a tiny model in ``tiny/``;
``check_anatomy`` proves it.
"""

from .anatomy import Anatomy, resolve
from .encode import Encoded, Encoder
from .families import FAMILIES, Family
from .loaded import LoadedModel
from .positions import Layout, Positions

__all__ = ["FAMILIES", "Anatomy", "Encoded", "Encoder", "Family", "Layout", "LoadedModel", "Positions", "resolve"]
