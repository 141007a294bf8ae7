"""Training methods by name; a method's file is imported when somebody asks for it."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from ..errors import UsageError, near_matches
from .method import Method

METHODS = {
    "sft": ("sft", "SFT"),
    "vlguard": ("vlguard", "VLGuard"),
    "msr_align": ("msr_align", "MSRAlign"),
    "rational": ("rational", "Rational"),
    "spa_vl": ("spa_vl", "SPAVL"),
    "srpo": ("srpo", "SRPO"),
    "safegrpo": ("safegrpo", "SafeGRPO"),
    "safevlm": ("safevlm", "SafeVLM"),
    "hysac": ("hysac.method", "HySACMethod"),
}
"""Name to (module of this package, class)."""

ENTRY_POINTS = "lvlm_lens.training_methods"
"""Group under which other packages announce methods of their own: name to class."""


def method_names() -> tuple[str, ...]:
    """Every name, those of other packages last."""
    return (*METHODS, *sorted(found.name for found in entry_points(group=ENTRY_POINTS) if found.name not in METHODS))


def method_class(name: str) -> type[Method]:
    """The class of a method; case and hyphens do not matter.

    Raises :class:`UsageError` for an unknown name (with near matches).
    """
    key = name.strip().lower().replace("-", "_")
    if key in METHODS:
        module, kind = METHODS[key]
        found: Any = getattr(import_module(f".{module}", __package__), kind)
    else:
        other = [point for point in entry_points(group=ENTRY_POINTS) if point.name == key]
        if not other:
            known = method_names()
            raise UsageError(f"no training method {name!r}{near_matches(key, known)}; there are: {', '.join(known)}")
        found = other[0].load()
    return found


def make_method(name: str, **options: Any) -> Method:
    """A method by name with its constructor's options.

    Raises :class:`UsageError` for an unknown name, or an option it does not have.
    """
    kind = method_class(name)
    known = kind().get_params(deep=False)
    for option in options:
        if option not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UsageError(f"method {kind.name!r} has no option {option!r}; {has}{near_matches(option, known)}")
    return kind(**options)
