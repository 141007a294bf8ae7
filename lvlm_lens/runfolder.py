"""The folder of one run; its home is :mod:`lvlm_lens.storage`."""

from .storage.commit import write_atomic
from .storage.runfolder import RunFolder

__all__ = ["RunFolder", "write_atomic"]
