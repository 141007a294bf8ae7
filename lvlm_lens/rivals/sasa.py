"""SASA's claim: danger is perceived at block s, and semantics is fused at a later block f (arXiv 2507.21637).

How the paper finds its two blocks could not be read, so both are this toolkit's roles: the onset of the linear probe of
harm over all items (s), and over the items that are unsafe only together (f), each above shuffled labels.  [own]
"""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from ..locate.roles import find_role
from ..measures.blocks import ArrayBlocks
from ..measures.linear_probe import LinearProbe
from .procedure import Found
from .readings import Readings


def sasa(r: Readings) -> Found:
    """s and f; without items that are unsafe only together, s alone as a range of one block."""
    s, values, why = _onset(r)
    if s is None:
        return Found(None, None, None, values, "AUROC", len(r), why)
    peak = r.blocks[int(values.argmax())]
    together = np.flatnonzero(r.joint)
    try:
        f, _, why = _onset(r.rows(together)) if len(together) else (None, values, "no items unsafe only together")
    except DataError as error:  # one class, or too few groups
        f, why = None, str(error)
    if f is None:
        return Found(s, s, peak, values, "AUROC", len(r), f"s alone: {why}")
    note = f"s = {s}, f = {f}" + ("" if s < f else ": perception does not begin before semantics")
    return Found(min(s, f), max(s, f), peak, values, "AUROC", len(r), note)


def _onset(r: Readings) -> tuple[int | None, np.ndarray, str]:
    """Onset block of the probe of harm (``None`` where it is not found), its curve, and why it is not."""
    assert r.last is not None
    probe = LinearProbe(permutations=20, replicates=100).fit(ArrayBlocks(r.last, r.blocks), r.labels, r.groups)
    role = find_role("perception", probe.curve_, ())
    return role.onset if role.found else None, probe.curve_.value, role.reason
