"""Models that no card of ours holds: captures and last-token patches on NDIF's servers, through nnsight.

Structure and processor are here, weights are there.  Prompts are encoded here by the checkpoint's own processor, as
everywhere, so the server sees the same tokens and pixels; positions are picked there, and only they come back.

Everything else is refused with its reason: a sweep needs a random twin, an evaluation many generated tokens, a patch
grid the resuming engine, and each of them weights or hooks of its own on the server.
"""

from .model import RemoteLVLM

__all__ = ["RemoteLVLM"]
