"""Writing into a model: edits by hooks, and the exact engine that runs again only what a write can change.

* :mod:`.edit`: functions that write activations at sites, blocked attention, directions taken out of weights.
* :mod:`.engine`: record one forward, describe cells (one intervention each), resume them; and the plain forward.
* :mod:`.inherit`: cells that take over another recording's prefix.

It imports ``activations``, ``models`` and ``data``; what is done with the numbers (grids, effects, defences) is above.
"""
