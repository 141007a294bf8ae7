"""Models: loading, encoding, running; where each family keeps its parts."""

from .anatomy import FAMILIES, Anatomy, Family, resolve
from .encode import Encoded, Encoder
from .loaded import LoadedModel
from .positions import Layout, Positions

__all__ = ["FAMILIES", "Anatomy", "Encoded", "Encoder", "Family", "Layout", "LoadedModel", "Positions", "resolve"]
