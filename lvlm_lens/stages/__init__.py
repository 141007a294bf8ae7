"""The stages of a sweep, in the order in which it walks them.

Each is one class with one contract (:mod:`.stage`): cost, run, figures, summary.  A stage may import every room below;
it keeps its own part of the run folder and continues there.  To add one: a file with its class, its name in
:func:`stages`, and ``check_stage`` of the tests shows that it keeps the contract.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .stage import Stage


def stages() -> tuple[Stage, ...]:
    """Fresh stages, in order (imported when they are asked for: they load the whole toolkit)."""
    from .defending import Defending, Projecting
    from .locating import Locating
    from .measuring import Measuring
    from .patching import Patching
    from .reading import Reading

    return (Reading(), Locating(), Measuring(), Patching(), Projecting(), Defending())
