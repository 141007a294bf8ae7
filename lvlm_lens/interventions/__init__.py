"""Writing into a model: edits by hooks, and the exact engine that runs again only what a write can change.

* :mod:`.edit`: functions that write activations at sites, blocked attention, directions taken out of weights.
* :mod:`.recording`: one untouched forward and what of it later runs need.
* :mod:`.cell`: one intervention on one row, and the plain forward with hooks that defines what it gives.
* :mod:`.engine`: cells resumed above what they change (:mod:`.reach` says where that is and whether it is exact,
  :mod:`.seats` packs them, :mod:`.inherit` takes over another run's prefix).
* :mod:`.rerun`: whole rows again from some block on, for edits at every position.
* :mod:`.verification`: a resumed cell against its plain forward, the noise and its own effect.

It imports ``activations``, ``models`` and ``data``; what is done with the numbers (grids, effects, defences) is above.
To add a way of writing, write a function in :mod:`.edit`; to let a family be resumed, look at :mod:`.reach`.
"""
